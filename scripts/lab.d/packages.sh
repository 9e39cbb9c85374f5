# Sourced by lab, demo, test and bench: installs Debian packages, only those that are missing.
# shellcheck shell=bash

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# As root, for network namespaces and packages both need it.
need_root() {
	[[ $(id -u) == 0 ]] || die "must run as root (network namespaces, netfilter and packages need it)"
}

# need_packages PACKAGE...: with LAB_INSTALL=no what is missing is an error.
need_packages() {
	local p installed missing=()
	installed=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "$@" 2>/dev/null) || true
	for p; do
		[[ $'\n'$installed == *$'\n'"$p ii"* ]] || missing+=("$p")
	done
	((${#missing[@]})) || return 0
	[[ ${LAB_INSTALL:-yes} != no ]] || die "missing packages: ${missing[*]}"
	[[ $(id -u) == 0 ]] || die "missing packages, and only root can install them: ${missing[*]}"
	command -v apt-get >/dev/null || die "missing packages, and no apt-get to install them with: ${missing[*]}"
	echo "installing: ${missing[*]}" >&2
	# The nginx and haproxy packages start a service on the host when they are configured. The lab runs its own
	# inside namespaces, so the host's stay off: policy-rc.d answers 101, "forbidden", while we install.
	local policy=/usr/sbin/policy-rc.d ours=0 rc=0
	if [[ ! -e $policy ]]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		ours=1
	fi
	{ DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" ||
		{ apt-get -qq update &&
			DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}"; }; } >&2 || rc=$?
	((ours)) && rm -f $policy
	((rc == 0)) || die "apt-get could not install: ${missing[*]}"
}

# need_documents PACKAGE...: the documentation and manual pages of Debian's packages, each in a folder that it prints. From the
# package itself: nothing is installed, and a machine may have left documentation out (path-exclude of dpkg). Kept for the next time.
need_documents() {
	local p work into=${LAB_DATA:-/var/cache/loaded-lab}/documents
	for p; do
		echo "$into/$p"
		[[ ! -d $into/$p ]] || continue
		[[ ${LAB_INSTALL:-yes} != no ]] || die "missing: the documentation of Debian's package $p in $into"
		mkdir -p "$into"
		work=$(mktemp -d "$into/.$p-XXXXXX")
		(
			cd "$work"
			get=(apt-get -qq -o APT::Sandbox::User=root)
			"${get[@]}" download "$p" >&2 || { "${get[@]}" update && "${get[@]}" download "$p"; } >&2 || exit
			mkdir files
			dpkg-deb --fsys-tarfile "$p"_*.deb | tar -x -C files ./usr/share/doc ./usr/share/man
		) || { rm -r "$work" && die "apt-get could not download Debian's package $p, for its documentation"; }
		# Another lab may have been faster.
		mv -T "$work/files" "$into/$p" 2>/dev/null || [[ -d $into/$p ]]
		rm -r "$work"
	done
}

# What loaded itself and the lab need. libnginx-mod-stream, wrk and haproxy are for the bench alone.
LAB_PACKAGES=(iproute2 iptables nftables conntrack nginx curl openssl procps ethtool tcpdump python3 iputils-ping traceroute faketime strace
	prometheus keepalived bird2 dnsmasq-base)
# shellcheck disable=SC2034  # used by the script that sources this
BENCH_PACKAGES=("${LAB_PACKAGES[@]}" libnginx-mod-stream haproxy wrk)

# Whose documentation has configurations that "loaded migrate" is tried on.
# shellcheck disable=SC2034  # used by the script that sources this
DOCUMENT_PACKAGES=(keepalived ipvsadm)

# What makes the Debian package, and what tries it.
# shellcheck disable=SC2034  # used by the scripts that source this
PACKAGE_PACKAGES=(debhelper dpkg-dev lintian mmdebstrap systemd-container)

# What boots Debian's kernels.
# shellcheck disable=SC2034  # used by the script that sources this
KERNEL_PACKAGES=(qemu-system-x86 busybox-static kmod xz-utils zstd debian-archive-keyring)

# cargo, with the pieces of the toolchain that a minimal rustup leaves out, a linker, and a compiler for the kernel's program.
# need_cargo COMPONENT...
need_cargo() {
	local c
	command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
	command -v cargo >/dev/null || die "no cargo: install Rust first (https://rustup.rs), and let root find it in PATH"
	command -v cc >/dev/null || need_packages gcc libc6-dev
	command -v "${CLANG:-clang}" >/dev/null || need_packages clang linux-libc-dev
	for c; do
		cargo "${c/rustfmt/fmt}" --version >/dev/null 2>&1 ||
			{ [[ ${LAB_INSTALL:-yes} != no ]] && rustup component add "$c"; } || die "cargo has no $c"
	done
}
