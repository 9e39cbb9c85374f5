# Sourced by try-systemd: follows the pages for newcomers in its container, every command of a block as it stands there. What is
# done by hand in between is a program here (editor), and so is what has been done before (cargo, scripts/package).
# tests/documents.rs finds blocks of these pages that are followed nowhere.
# shellcheck shell=bash
# What is not here is in the script that sources this.
# shellcheck disable=SC2154

# Where the newcomer has the sources.
SOURCES=/root/loaded

# A newcomer's machine: the sources with what was built of them, and somebody who edits. newcomer PACKAGE
newcomer() {
	install -D "${LOADED_BIN:-$HERE/../target/release/loaded}" "$debian$SOURCES/target/release/loaded"
	install -D -t "$debian$SOURCES/target/debian" "$1"
	cp -r "$HERE" "$debian$SOURCES/scripts"
	cat >"$debian/usr/local/bin/editor" <<-'END'
		#!/bin/bash
		# The classic files and the whole sample have the lab's addresses already.
		echo "$(systemctl is-enabled loaded 2>&1) $(systemctl is-active loaded)" >/root/before
		grep -q '^#\[\[service\]\]' "$1" || exit 0
		# What the unit could take away is used: pings, the kernel path, routes by mark.
		sed -i -E '/^#\[\[service\]\]$/,$ s/^#//; s/^protocol = .*/protocol = "tcp"/; s/^vip = .*/vip = ["192.0.2.100", "2001:db8:1::100"]/
			s/kind = "tcp"/kind = "icmp+tcp"/; s/^user = .*/&\nfast = "auto"/' "$1"
		cat >>"$1" <<-TOML

			[[service.backend]]
			address = "2001:db8:2::11"

			[[service]]
			name = "direct"
			vip = "192.0.2.200"
			protocol = "udp"
			ports = [53]
			mode = "dsr"

			[[service.backend]]
			address = "198.51.100.11"
		TOML
	END
	printf '#!/bin/sh\n' | tee "$debian/usr/local/bin/cargo" >"$debian$SOURCES/scripts/package"
	chmod 755 "$debian/usr/local/bin/editor" "$debian/usr/local/bin/cargo"
	echo 'APT::Get::Assume-Yes "true";' >"$debian/etc/apt/apt.conf.d/yes"
}

# steps PAGE HEADING [BLOCK]: the commands of the blocks below it, or of one of them, one a line.
steps() {
	awk -v heading="$2" -v only="${3:-}" '
		/^```/ { open = !open; block += open && here; next }
		!open && /^#+ / { sub(/^#+ /, ""); here = $0 == heading; next }
		open && here && (only == "" || only == block)' "$HERE/../$1" |
		sed -E 's/ +# .*$//; /^$/d' | sed -e ':a' -e '/\\$/{N;s/\\\n//;ba}'
}

# follow PAGE HEADING [BLOCK NAMESPACE]: runs them in the container, or in a namespace of the lab. What stands in capitals for
# something is put in.
follow() {
	local step all
	mapfile -t all < <(steps "$1" "$2" "${3:-}")
	((${#all[@]})) || die "$1: no commands below \"$2\""
	for step in "${all[@]}"; do
		[[ $step != *PID* ]] || step=${step//PID/$(pid)}
		step=${step//OUTSIDE/eth0}
		if [[ -n ${4:-} ]]; then
			holds "$1, $2, in $4: $step" ns "$4" sh -c "$step"
		elif [[ $step == */loaded\ -D\ * ]]; then
			inside sh -c "cd $SOURCES && exec $step" </dev/null >"$work/foreground" 2>&1 &
			foreground=$!
			holds "$1, $2: $step" eventually serves
		else
			holds "$1, $2: $step" inside sh -c "cd $SOURCES && $step" </dev/null
		fi
	done
}

# As if nothing had been done yet.
forget() {
	inside userdel loaded
	inside rmdir /run/empty
}
# Not by grep -q, which would end iptables-save early.
# shellcheck disable=SC2143
no_rules() { [[ -z $(ns lb iptables-save -t raw | grep LOADED) ]]; }

is_another() { # PID
	local now
	now=$(pid)
	[[ $now != 0 && $now != "$1" ]]
}

# The binary by hand, and as a unit of one's own. No package is installed.
follow_by_hand() {
	local old
	inside systemctl is-enabled loaded >/dev/null 2>&1 && die "the package is still there"
	follow README.md "Five minutes to a running service"
	# A shell, and nsenter, which waits for it.
	kill -INT "$(pgrep -P "$(pgrep -P "$foreground")")"
	wait "$foreground" || die "after Ctrl-C: $(cat "$work/foreground")"
	holds "Ctrl-C takes its rules out" no_rules

	forget
	follow docs/install.md "With a classic configuration"
	holds "clients of both families are served" eventually both
	# shellcheck disable=SC2016  # for the shell inside
	inside sh -c 'kill -TERM "$(grep -lsx loaded /proc/[0-9]*/comm | cut -d/ -f3)"'
	holds "TERM takes its rules out" eventually no_rules

	follow docs/install.md "Under systemd"
	holds "clients of both families are served" eventually both
	old=$(pid)
	ask
	follow docs/install.md "Upgrade"
	holds "another process serves" eventually is_another "$old"
	none_was_lost "an upgrade by hand"
}

# Direct server return, in the lab: a way from backends to clients past the balancer, which has the VIP no more.
follow_direct_return() {
	local who
	inside systemctl stop loaded
	ns sw ip link add direct type veth peer name eth1 netns "$LAB-client"
	ns sw ip link set direct master br0 up
	ns client sh -e <<-'END'
		ip route del 198.51.100.0/24; ip -6 route del 2001:db8:2::/64; ip link set eth1 up
		ip address add 198.51.100.1/24 dev eth1; ip address add 2001:db8:2::1/64 dev eth1 nodad
	END
	ns lb sh -e <<-'END'
		ip address del 192.0.2.100/24 dev eth0; ip address del 2001:db8:1::100/64 dev eth0
		ip address add 192.0.2.254/24 dev eth0; ip address add 2001:db8:1::fe/64 dev eth0 nodad
	END
	cat >"$debian/etc/loaded/loaded.toml" <<-END
		unserved = "drop"
		[[service]]
		name = "web"
		vip = ["192.0.2.100", "2001:db8:1::100"]
		protocol = "tcp"
		ports = [80]
		mode = "dsr"
		$(printf '[[service.backend]]\naddress = "%s"\n' 198.51.100.1{1,2} 2001:db8:2::1{1,2})
	END
	for who in b1 b2; do
		follow docs/guide.md "Direct server return" 1 "$who"
		ns "$who" sh -ec 'ip route replace default via 198.51.100.1; ip -6 route replace default via 2001:db8:2::1'
	done
	follow docs/guide.md "Direct server return" 2 lb
	inside systemctl start loaded
	holds "clients are answered past the balancer" eventually both
	follow docs/guide.md "Asymmetric networks" 1 lb
	follow docs/guide.md "Clients and backends on one interface" 1 lb
	holds "clients are served behind these rules" both
}
