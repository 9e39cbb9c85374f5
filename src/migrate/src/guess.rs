//! Which format is it? The first line that only one of them can have tells.

use crate::Format;

/// How lines begin.
const BEGINNINGS: [(Format, &[&str]); 4] = [
    (Format::Ipvsadm, &["-A ", "-a ", "--add-service ", "--add-server ", "ipvsadm "]),
    (
        Format::Keepalived,
        &["virtual_server ", "virtual_server_group ", "global_defs", "vrrp_", "static_", "real_server ", "linkbeat_"],
    ),
    (
        Format::Nginx,
        &[
            "stream ",
            "stream{",
            "http ",
            "http{",
            "events ",
            "events{",
            "upstream ",
            "server ",
            "server{",
            "worker_",
            "load_module ",
        ],
    ),
    (
        Format::Classic,
        &["VIP4=", "VIP6=", "VIP4net=", "VIP6net=", "RIP4=", "RIP6=", "server4=", "server6=", "NS=", "FIRST_CORE="],
    ),
];

/// The format of a text; `None` if no line tells.
#[must_use]
pub fn guess(text: &str) -> Option<Format> {
    text.lines().map(str::trim_start).find_map(|line| {
        let begins = |start: &&&str| line.starts_with(**start) || line == start.trim_end();
        BEGINNINGS.iter().find(|(_, starts)| starts.iter().any(|start| begins(&start))).map(|(format, _)| *format)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_format() {
        for (text, format) in [
            ("# x\n-A -t 192.0.2.1:80 -s rr\n", Some(Format::Ipvsadm)),
            ("! x\n\nglobal_defs {\n}\n", Some(Format::Keepalived)),
            ("user nginx;\nevents {}\nstream {\n", Some(Format::Nginx)),
            ("#!/bin/sh\nVIP4=192.0.2.1\n", Some(Format::Classic)),
            ("hello\n", None),
        ] {
            assert_eq!(guess(text), format, "{text}");
        }
    }
}
