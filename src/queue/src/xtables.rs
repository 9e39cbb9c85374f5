//! What the tables of iptables-legacy look like from outside. The kernel announces no change of them, so whoever watches
//! them has to look; this look costs a few microseconds, whatever the tables hold.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `struct ipt_getinfo` (include/uapi/linux/netfilter_ipv4/ip_tables.h), alike for IPv6: the name, then the places of the
/// hooks, the number of entries and their size in bytes, 13 words.
const INFO: usize = NAME + 13 * 4;
/// XT_TABLE_MAXNAMELEN
const NAME: usize = 32;
/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO
const GET_INFO: libc::c_int = 64;

/// Number, size and places of the rules of every legacy table that exists, both families. If it differs from what it was,
/// rules have changed. A change that keeps all of these (a policy, or as many rules of the same kind) does not show.
///
/// # Errors
/// If the kernel refuses a raw socket, which needs CAP_NET_RAW and CAP_NET_ADMIN.
pub fn legacy_tables() -> io::Result<Vec<u8>> {
    let mut seen = Vec::new();
    for (family, level, names) in [
        (AddressFamily::Inet, libc::IPPROTO_IP, "/proc/net/ip_tables_names"),
        (AddressFamily::Inet6, libc::IPPROTO_IPV6, "/proc/net/ip6_tables_names"),
    ] {
        // Asking for a table that does not exist would make it (xt_request_find_table_lock loads its module).
        let names = fs::read_to_string(names).unwrap_or_default();
        if names.is_empty() {
            continue;
        }
        let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, RAW)?;
        for name in names.lines().filter(|name| name.len() < NAME) {
            seen.extend(info(&raw, level, name)?);
        }
    }
    Ok(seen)
}

/// IPPROTO_RAW: such a socket receives nothing.
const RAW: nix::sys::socket::SockProtocol = nix::sys::socket::SockProtocol::Raw;

fn info(raw: &OwnedFd, level: libc::c_int, name: &str) -> io::Result<[u8; INFO]> {
    let mut info = [0; INFO];
    info[..name.len()].copy_from_slice(name.as_bytes());
    let mut length = libc::socklen_t::try_from(INFO).unwrap_or(0);
    // SAFETY: the pointer and the length describe `info`, which outlives the call; the kernel reads a name from it and
    // writes as many bytes as it was told there are.
    let result =
        unsafe { libc::getsockopt(raw.as_raw_fd(), level, GET_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(result)?;
    Ok(info)
}
