//! A policy as text, for `--print-sandbox ROLE`. Symbolic and stable: no pid, number or address of a running process.

use std::fmt::Write;

use super::{Arg, Fd, Policy, Role, Rule, Terms};
use crate::identity::CHROOT;

/// The whole sandbox of a role, as it is enforced.
pub fn print(role: Role) -> String {
    match role {
        Role::Prober => "role prober: not part of this version\n".to_owned(),
        Role::Worker => child(role, &Policy::worker()),
        Role::Supervisor => supervisor(&Policy::supervisor()),
    }
}

fn child(role: Role, policy: &Policy) -> String {
    let terms = Terms::of(role);
    let mut page = Page::default();
    page.line("role", &role.to_string());
    page.line("user", "the one of -U: all four uids and gids, no supplementary group; never uid 0 or gid 0");
    page.line("chroot", &format!("{CHROOT}, which must be empty and writable by root alone"));
    page.capabilities(terms, "effective, permitted and bounding set; inheritable and ambient are empty");
    page.line("securebits", "noroot, no-setuid-fixup, no-cap-ambient-raise, all locked; keep-caps locked off");
    page.line("privileges", "no_new_privs; not dumpable; dies with the supervisor; no page writable and executable");
    for (i, namespace) in terms.namespaces.iter().enumerate() {
        page.row(if i == 0 { "namespaces" } else { "" }, &format!("own {}", namespace.name), namespace.why);
    }
    page.line(
        "landlock",
        "no file, no TCP or UDP, no signal, no abstract socket, as far as the ABI goes; no exception",
    );
    for (i, limit) in terms.limits.iter().enumerate() {
        page.row(if i == 0 { "rlimits" } else { "" }, &format!("{} {}", limit.name, limit.value), limit.why);
    }
    for (i, fd) in terms.fds.iter().enumerate() {
        page.line(if i == 0 { "descriptors" } else { "" }, &format!("{i} {fd}"));
    }
    page.line("faults", "SIGSEGV and SIGBUS have no handler: a store into the templates kills as SIGSEGV");
    page.line("seccomp", "these calls with these arguments; any other kills the process");
    page.rules(policy);
    page.0
}

fn supervisor(policy: &Policy) -> String {
    let mut page = Page::default();
    page.line("role", "supervisor");
    page.line("user", "root");
    page.capabilities(
        Terms::of(Role::Supervisor),
        "effective, permitted and bounding set; inheritable and ambient are empty",
    );
    page.line("privileges", "no_new_privs");
    page.line("seccomp", "these calls kill the process, here and in every child; any other is allowed");
    page.line("", "x32 calls (bit 30 of the number) and foreign architectures kill the process too");
    page.rules(policy);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, key: &str, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key:<13}{text}");
    }

    fn row(&mut self, key: &str, what: &str, why: &str) {
        let _ = writeln!(self.0, "{key:<13}{what:<19}{why}");
    }

    fn capabilities(&mut self, terms: &Terms, sets: &str) {
        self.line("capabilities", sets);
        for kept in terms.caps {
            self.row("", &kept.cap.to_string(), kept.why);
        }
    }

    fn rules(&mut self, policy: &Policy) {
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

fn demand(rule: &Rule, arg: Arg) -> String {
    match arg {
        Arg::FdIs(Fd::Queue) => "arg 0 == queue".to_owned(),
        Arg::FdIs(Fd::Link) => "arg 0 == link".to_owned(),
        Arg::InTemplates(index) => format!("templates.start <= arg {index} < templates.end"),
        Arg::AlignedTo(index, to) => format!("arg {index} % {to} == 0"),
        Arg::Is(index, value) if rule.call == "recvmmsg" && value == libc::MSG_WAITFORONE.cast_unsigned() => {
            format!("arg {index} == MSG_WAITFORONE")
        }
        Arg::Is(index, value) => format!("arg {index} == {value}"),
        Arg::Null(index) => format!("arg {index} == NULL"),
    }
}
