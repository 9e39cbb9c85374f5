//! What the pages for newcomers say is done by `scripts/test systemd`, which reads the commands from them. Here is only seen that it
//! reads all of them.

use crate::{none, read, tests};
use std::collections::BTreeSet;

/// Pages whose commands a newcomer follows.
const FOLLOWED: [&str; 3] = ["README.md", "docs/install.md", "docs/guide.md"];
/// Blocks of commands in them that scripts/lab.d/pages.sh does not follow: page, heading, the test that tries the same or the reason.
const ELSEWHERE: [(&str, &str, &str); 3] = [
    ("README.md", "Two commands", "whoever runs them sees whether they work; CI runs scripts/test"),
    ("docs/install.md", "In a container", "by hand, as the page says: it needs podman"),
    ("docs/guide.md", "Firewall", "e2e::host::host_conditions::"),
];

/// Blocks of commands, not of TOML or pictures: the heading they stand below, and their number there, from 1.
fn blocks_of_commands(text: &str) -> Vec<(String, usize)> {
    let mut blocks = Vec::new();
    let (mut heading, mut number, mut inside) = (String::new(), 0, None);
    for line in text.lines() {
        match &mut inside {
            Some(lines) if line.starts_with("```") => {
                let text: &Vec<&str> = lines;
                let is_toml = text.iter().any(|line| line.starts_with("[[") || line.contains(" = {"));
                if !is_toml && !text.iter().any(|line| line.contains('─')) {
                    blocks.push((heading.clone(), number));
                }
                inside = None;
            }
            Some(lines) => lines.push(line),
            None if line.starts_with("```") => {
                number += 1;
                inside = Some(Vec::new());
            }
            None if line.starts_with('#') => {
                heading = line.trim_start_matches('#').trim().to_owned();
                number = 0;
            }
            None => {}
        }
    }
    blocks
}

/// Whoever follows these pages does what scripts/test systemd has done: it reads the commands from them.
#[test]
fn every_command_of_the_pages_for_newcomers_is_tried() {
    let script = ["try-systemd", "pages.sh"].map(|name| read(&format!("scripts/lab.d/{name}"))).concat();
    let followed: BTreeSet<_> = script.lines().filter_map(|line| line.trim().strip_prefix("follow ")).collect();
    let tests = tests();
    let mut wrong = Vec::new();
    let mut blocks = Vec::new();
    for page in FOLLOWED {
        for (heading, number) in blocks_of_commands(&read(page)) {
            let whole = format!("{page} \"{heading}\"");
            let is_followed =
                followed.iter().any(|one| *one == whole || one.starts_with(&format!("{whole} {number} ")));
            let elsewhere = ELSEWHERE.iter().find(|(of, below, _)| (*of, *below) == (page, heading.as_str()));
            if is_followed == elsewhere.is_some() {
                let file = "scripts/lab.d/pages.sh";
                let also = if is_followed { "it is followed by" } else { "nothing follows it: add it to" };
                wrong.push(format!("{page}, {heading}, block {number}: {also} {file}, or say here why not"));
            }
            blocks.push((page, heading));
        }
    }
    assert!(blocks.len() >= 12, "{blocks:?}");
    for (page, heading, by) in ELSEWHERE {
        if !blocks.iter().any(|(of, below)| (*of, below.as_str()) == (page, heading)) {
            wrong.push(format!("{page} has no commands below {heading:?}"));
        }
        if by.contains("::") && !tests.iter().any(|test| test.contains(&format!("::{by}"))) {
            wrong.push(format!("{page}, {heading}: no test {by}"));
        }
    }
    none(wrong);
}
