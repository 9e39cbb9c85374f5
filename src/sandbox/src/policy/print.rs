//! A policy as text, for `--print-sandbox ROLE`. Symbolic and stable: no pid, number or address of a running process.

use std::fmt::Write;

use super::SandboxPolicy;
use super::confinement::Confinement;
use super::exporter::CONNECTIONS;
use super::prober::CHECK_SOCKETS;
use super::rule::{Arg, Fd, SyscallRule};
use crate::identity::CHROOT;
use crate::role::Role;

/// The whole sandbox of a role, as it is enforced.
pub fn print(role: Role) -> String {
    match role {
        Role::Prober => child(role, &SandboxPolicy::prober(true)),
        Role::Worker => child(role, &SandboxPolicy::worker()),
        Role::Exporter => child(role, &SandboxPolicy::exporter()),
        Role::Supervisor => supervisor(&SandboxPolicy::supervisor()),
    }
}

fn child(role: Role, policy: &SandboxPolicy) -> String {
    let confinement = Confinement::of(role);
    let mut page = PolicyText::default();
    page.line("role", &role.to_string());
    page.line("user", "the one of -U: all four uids and gids, no supplementary group; never uid 0 or gid 0");
    page.line("chroot", &format!("{CHROOT}, which must be empty and writable by root alone"));
    page.capabilities(confinement, "effective, permitted and bounding set; inheritable and ambient are empty");
    page.line("securebits", "noroot, no-setuid-fixup, no-cap-ambient-raise, all locked; keep-caps locked off");
    let dies =
        if role == Role::Worker { "dies with the supervisor if linger = false" } else { "dies with the supervisor" };
    page.line("privileges", &format!("no_new_privs; not dumpable; {dies}; no page writable and executable"));
    for (i, namespace) in confinement.namespaces.iter().enumerate() {
        page.row(if i == 0 { "namespaces" } else { "" }, &format!("own {}", namespace.name), namespace.why);
    }
    page.line("landlock", confinement.landlock);
    for (i, limit) in confinement.limits.iter().enumerate() {
        page.row(if i == 0 { "rlimits" } else { "" }, &format!("{} {}", limit.name, limit.value), limit.why);
    }
    for (i, fd) in confinement.fds.iter().enumerate() {
        page.line(if i == 0 { "descriptors" } else { "" }, &format!("{i} {fd}"));
    }
    if let Some(each) = confinement.fd_per_worker {
        page.line("", &format!("{}… {each}", confinement.fds.len()));
    }
    page.line("faults", confinement.faults);
    page.line("seccomp", "these calls with these arguments, in any of the listed ways; any other kills the process");
    page.rules(policy);
    page.remains(confinement);
    page.0
}

fn supervisor(policy: &SandboxPolicy) -> String {
    let mut page = PolicyText::default();
    page.line("role", "supervisor");
    page.line("user", "root");
    page.capabilities(
        Confinement::of(Role::Supervisor),
        "effective, permitted and bounding set; inheritable and ambient are empty",
    );
    page.line("privileges", "no_new_privs");
    page.line("seccomp", "these calls kill the process, here and in every child; any other is allowed");
    page.line("", "x32 calls (bit 30 of the number) and foreign architectures kill the process too");
    page.rules(policy);
    page.0
}

#[derive(Default)]
struct PolicyText(String);

impl PolicyText {
    fn line(&mut self, key: &str, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key:<13}{text}");
    }

    fn row(&mut self, key: &str, what: &str, why: &str) {
        let _ = writeln!(self.0, "{key:<13}{what:<19}{why}");
    }

    fn capabilities(&mut self, confinement: &Confinement, sets: &str) {
        self.line("capabilities", sets);
        for kept in confinement.caps {
            self.row("", &kept.cap.to_string(), kept.why);
        }
    }

    fn remains(&mut self, confinement: &Confinement) {
        if !confinement.remains.is_empty() {
            self.line("remains", "what one that is hostile can still do, and nothing else");
        }
        for one in confinement.remains {
            let _ = writeln!(self.0, "  {one}");
        }
    }

    fn rules(&mut self, policy: &SandboxPolicy) {
        let mut last_why = "";
        for rule in policy.rules() {
            let why = if rule.why == last_why { "" } else { rule.why };
            last_why = rule.why;
            let _ = writeln!(self.0, "{}", format!("  {:<19}{why}", rule.call).trim_end());
            for arg in rule.args.iter() {
                let _ = writeln!(self.0, "      {}", demand(rule, *arg));
            }
        }
    }
}

fn demand(rule: &SyscallRule, arg: Arg) -> String {
    match arg {
        Arg::FdIs(Fd::Queue) => "arg 0 == queue".to_owned(),
        Arg::FdIs(Fd::Link) => "arg 0 == link".to_owned(),
        Arg::FdIs(Fd::Membership) => "arg 0 == membership".to_owned(),
        Arg::FdIs(Fd::Ping4) => "arg 0 == ping4".to_owned(),
        Arg::FdIs(Fd::Ping6) => "arg 0 == ping6".to_owned(),
        Arg::FdIs(Fd::Epoll) => "arg 0 == epoll".to_owned(),
        Arg::FdIs(Fd::Workers) => "first worker <= arg 0 <= last worker".to_owned(),
        Arg::FdIs(Fd::Checks) => format!("last worker < arg 0 <= last worker + {CHECK_SOCKETS}"),
        Arg::FdIs(Fd::Listener) => "arg 0 == listener".to_owned(),
        Arg::FdIs(Fd::Connections) => format!("listener < arg 0 <= listener + {CONNECTIONS}"),
        Arg::InTemplates(index) => format!("templates.start <= arg {index} < templates.end"),
        Arg::AlignedTo(index, to) => format!("arg {index} % {to} == 0"),
        Arg::Is(index, value) => format!("arg {index} == {}", word(rule.call, index, value)),
        Arg::OnlyBits(index, bits) => format!("arg {index} & ~({}) == 0", word(rule.call, index, bits)),
        Arg::Null(index) => format!("arg {index} == NULL"),
    }
}

/// A number by its name in the headers.
fn word(call: &str, index: u8, value: u32) -> String {
    const ONE: [(&str, u8, i32, &str); 8] = [
        ("fcntl", 1, libc::F_SETFL, "F_SETFL"),
        ("fcntl", 2, libc::O_NONBLOCK, "O_NONBLOCK"),
        ("recvmmsg", 3, libc::MSG_WAITFORONE, "MSG_WAITFORONE"),
        ("socket", 0, libc::AF_INET, "AF_INET"),
        ("socket", 0, libc::AF_INET6, "AF_INET6"),
        ("getsockopt", 1, libc::SOL_SOCKET, "SOL_SOCKET"),
        ("getsockopt", 2, libc::SO_ERROR, "SO_ERROR"),
        ("shutdown", 1, libc::SHUT_WR, "SHUT_WR"),
    ];
    const BITS: [(&str, i32, &str); 9] = [
        // SOCK_STREAM is 1 and SOCK_DGRAM is 2, so these are bits too.
        ("socket", libc::SOCK_STREAM, "SOCK_STREAM"),
        ("socket", libc::SOCK_DGRAM, "SOCK_DGRAM"),
        ("socket", libc::SOCK_NONBLOCK, "SOCK_NONBLOCK"),
        ("socket", libc::SOCK_CLOEXEC, "SOCK_CLOEXEC"),
        ("accept4", libc::SOCK_NONBLOCK, "SOCK_NONBLOCK"),
        ("accept4", libc::SOCK_CLOEXEC, "SOCK_CLOEXEC"),
        ("send", libc::MSG_NOSIGNAL, "MSG_NOSIGNAL"),
        ("recv", libc::MSG_DONTWAIT, "MSG_DONTWAIT"),
        ("recv", libc::MSG_TRUNC, "MSG_TRUNC"),
    ];
    let is = |number: i32| number.cast_unsigned() == value;
    if let Some((.., name)) = ONE.iter().find(|(of, at, number, _)| *of == call && *at == index && is(*number)) {
        return (*name).to_owned();
    }
    let bits = BITS.iter().filter(|(of, bit, _)| call.starts_with(of) && value & bit.cast_unsigned() != 0);
    let names: Vec<&str> = bits.map(|(.., name)| *name).collect();
    if names.is_empty() { value.to_string() } else { names.join("|") }
}
