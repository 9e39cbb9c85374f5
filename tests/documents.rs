//! The pages tell the truth about names: every path, test, counter, metric, option, command and key in them exists, every
//! counter, metric, option and command is in them, and every local link leads somewhere. Needs no rights.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "documents/followed.rs"]
mod followed;

use loaded_ipc::{Fault, Outcome, Pressure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// README stays a page that is read to its end.
const README_LINES: usize = 150;
/// Folders of the repository that paths in the pages begin with.
const FOLDERS: [&str; 9] =
    ["src/", "tests/", "scripts/", "supervisor/", "worker/", "prober/", "exporter/", "docs/", ".ci/"];
/// What each decision says, in this order.
const DECISION: [&str; 4] = ["## Context", "## Decision", "## Evidence", "## Consequences"];

/// A page: its path from the root, and its text.
struct Page {
    path: String,
    text: String,
}

impl Page {
    /// What stands between backticks: inline, and each line of a block.
    fn code(&self) -> Vec<&str> {
        let mut spans = Vec::new();
        let mut is_block = false;
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                is_block = !is_block;
            } else if is_block {
                spans.push(line);
            } else {
                spans.extend(line.split('`').skip(1).step_by(2));
            }
        }
        spans
    }

    /// The same without blocks.
    fn inline(&self) -> Vec<&str> {
        let mut is_block = false;
        let lines = self.text.lines().filter(|line| {
            is_block ^= line.trim_start().starts_with("```");
            !is_block
        });
        lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }

    /// Names of the headings in links, as forges make them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
    }
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder of the root, by their paths from the root; not those that a build or git makes.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_ours = !matches!(entry.file_name().to_str(), Some("target" | ".git" | "corpus"));
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn pages() -> Vec<Page> {
    let pages = files("").into_iter().filter(|path| path.ends_with(".md"));
    pages.map(|path| Page { text: read(&path), path }).collect()
}

fn page(path: &str) -> Page {
    Page { path: path.to_owned(), text: fs::read_to_string(root().join(path)).unwrap() }
}

/// Every complaint at once: whoever renames something sees all that is to be mended.
#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Words of a text that are made of these characters.
fn words(text: &str, is_part: impl Fn(char) -> bool + Copy) -> impl Iterator<Item = &str> {
    text.split(move |c: char| !is_part(c)).filter(|word| !word.is_empty())
}

#[test]
fn the_readme_is_short() {
    assert!(page("README.md").text.lines().count() <= README_LINES);
}

#[test]
fn every_path_exists() {
    let mut wrong = Vec::new();
    for page in pages() {
        for span in page.code() {
            for word in words(span, |c| c.is_ascii_alphanumeric() || "_./-".contains(c)) {
                let path = word.trim_start_matches("../").trim_end_matches('.');
                if FOLDERS.iter().any(|folder| path.starts_with(folder)) && !root().join(path).exists() {
                    wrong.push(format!("{}: {path} does not exist", page.path));
                }
            }
        }
    }
    none(wrong);
}

#[test]
fn every_local_link_resolves() {
    let mut wrong = Vec::new();
    for of in pages() {
        let targets = of.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&of.path).parent().unwrap();
            let path = if file.is_empty() { PathBuf::from(&of.path) } else { folder.join(file) };
            if !root().join(&path).exists() {
                wrong.push(format!("{}: {target}: no such file", of.path));
            } else if !anchor.is_empty() && !page(path.to_str().unwrap()).anchors().contains(anchor) {
                wrong.push(format!("{}: {target}: no such heading", of.path));
            }
        }
    }
    none(wrong);
}

#[test]
fn pages_that_the_sources_name_exist() {
    let mut wrong = Vec::new();
    let folders = ["src", "supervisor", "worker", "prober", "exporter", "scripts", "tests"];
    for path in folders.into_iter().flat_map(files).filter(|path| path != "tests/documents.rs") {
        let text = read(&path);
        for word in words(&text, |c| c.is_ascii_alphanumeric() || "_./-".contains(c)) {
            let named = word.trim_end_matches('.');
            if named.ends_with(".md") && !root().join(named).exists() {
                wrong.push(format!("{path}: {named} does not exist"));
            }
        }
    }
    none(wrong);
}

/// Every test by the modules it is in, with the folders around them: "e2e::killed::connections_outlive_a_hundred_workers".
fn tests() -> Vec<String> {
    let folders = ["src", "supervisor", "worker", "prober", "exporter", "tests"];
    let sources = folders.into_iter().flat_map(files).filter(|path| path.ends_with(".rs"));
    let mut tests = Vec::new();
    for path in sources {
        let parts = path.trim_end_matches(".rs").split('/');
        let parts: Vec<_> = parts.filter(|part| !matches!(*part, "src" | "tests" | "mod" | "main" | "lib")).collect();
        let text = read(&path);
        for behind in text.split("#[test]").skip(1) {
            let name = behind.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).map(|(name, _)| name);
            tests.extend(name.map(|name| format!("::{}::{name}", parts.join("::"))));
        }
    }
    tests
}

#[test]
fn every_test_that_a_page_names_exists() {
    let tests = tests();
    assert!(tests.len() > 500, "{} tests found", tests.len());
    let mut wrong = Vec::new();
    for page in pages() {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':');
        for span in page.inline().into_iter().filter(|span| span.contains("::") && span.chars().all(is_name)) {
            // As cargo's filter: the last word may be the beginning of a name.
            if !tests.iter().any(|test| test.contains(&format!("::{span}"))) {
                wrong.push(format!("{}: no test {span}", page.path));
            }
        }
    }
    none(wrong);
}

#[test]
fn every_counter_and_every_metric_is_explained() {
    let operations = page("docs/operations.md");
    let spans: BTreeSet<_> = operations.inline().into_iter().collect();
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.label());
    let others = Fault::ALL.iter().map(|fault| fault.label()).chain(Pressure::ALL.iter().map(|each| each.label()));
    let counters = outcomes.chain(others).map(str::to_owned);
    let sources = ["src", "supervisor"].into_iter().flat_map(files);
    let metrics = sources
        .filter(|path| (path.ends_with("/metrics.rs") || path.contains("/metrics/")) && !path.contains("/tests/"))
        .flat_map(|path| {
            let text = read(&path);
            let quoted = text.split('"').skip(1).step_by(2).filter(|text| text.starts_with("loaded_"));
            quoted.map(str::to_owned).collect::<Vec<_>>()
        });
    let all: BTreeSet<String> = counters.chain(metrics).collect();
    let mut wrong: Vec<_> = all
        .iter()
        .filter(|name| !spans.contains(name.as_str()))
        .map(|name| format!("{name} is not in docs/operations.md"))
        .collect();
    // And the other way round.
    let prefixes = ["dropped_", "passed_", "refused_", "answered_", "forwarded_", "loaded_"];
    for page in pages() {
        let spans = page.inline().into_iter().filter(|span| !span.contains("::"));
        for word in spans.flat_map(|span| words(span, |c| c.is_ascii_lowercase() || c == '_')) {
            let is_crate = fs::exists(root().join("src").join(word.trim_start_matches("loaded_"))).unwrap();
            let is_one = prefixes.iter().any(|prefix| word.starts_with(prefix)) && !is_crate;
            if is_one && !all.contains(word) {
                wrong.push(format!("{}: {word} is no counter and no metric", page.path));
            }
        }
    }
    none(wrong);
}

/// What `loaded … --help` prints, for the program and each command, with the words that lead there.
fn helps() -> Vec<(String, String)> {
    let mut helps = Vec::new();
    let mut waiting = vec![Vec::<String>::new()];
    while let Some(line) = waiting.pop() {
        let output = Command::new(env!("CARGO_BIN_EXE_loaded")).args(&line).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // `help` explains the others.
        for command in listed.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help") {
            waiting.push(line.iter().cloned().chain([command.to_owned()]).collect());
        }
        helps.push((["loaded".to_owned()].into_iter().chain(line).collect::<Vec<_>>().join(" "), text));
    }
    helps
}

fn options(text: &str) -> impl Iterator<Item = &str> {
    words(text, |c| c.is_ascii_alphanumeric() || c == '-').filter(|word| word.starts_with("--") && word.len() > 2)
}

#[test]
fn every_option_and_every_command_is_explained_and_no_other() {
    let helps = helps();
    assert!(helps.len() > 8, "{} commands found", helps.len());
    let pages = pages();
    let code: Vec<_> = pages.iter().flat_map(|page| page.code().into_iter().map(|span| (&page.path, span))).collect();
    let mut wrong = Vec::new();
    for (command, help) in &helps {
        if !code.iter().any(|(_, span)| span.contains(command.as_str())) {
            wrong.push(format!("no page has `{command}`"));
        }
        for option in options(help) {
            if !code.iter().any(|(_, span)| options(span).any(|named| named == option)) {
                wrong.push(format!("no page has {option} of `{command}`"));
            }
        }
    }
    let known: BTreeSet<_> = helps.iter().flat_map(|(_, help)| options(help)).collect();
    let commands: BTreeSet<_> = helps.iter().map(|(command, _)| command.as_str()).chain(["loaded help"]).collect();
    for (path, span) in code {
        let line = span.trim_start().trim_start_matches("$ ").split(['#', ';']).next().unwrap();
        let line = line.rsplit_once("release/").map_or(line, |(_, rest)| rest);
        let Some(arguments) = line.strip_prefix("loaded ") else { continue };
        let word = arguments.split_whitespace().next().unwrap_or_default();
        let is_command = word.chars().all(|c| c.is_ascii_lowercase()) && !word.is_empty();
        if is_command && !commands.contains(format!("loaded {word}").as_str()) {
            wrong.push(format!("{path}: `loaded {word}` is no command"));
        }
        let strange = options(arguments).filter(|option| !known.contains(option));
        wrong.extend(strange.map(|option| format!("{path}: {option} is no option: {span}")));
    }
    none(wrong);
}

#[test]
fn every_key_of_a_page_is_in_the_sample() {
    let sample = read("scripts/loaded.toml");
    let keys: BTreeSet<_> = words(&sample, |c| c.is_ascii_alphanumeric() || c == '_').collect();
    let mut wrong = Vec::new();
    for page in pages() {
        for span in page.inline() {
            let key = span.split_once(" = ").map(|(key, _)| key.rsplit('.').next().unwrap());
            if key.is_some_and(|key| {
                key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()) && !keys.contains(key)
            }) {
                wrong.push(format!("{}: `{span}`: scripts/loaded.toml has no such key", page.path));
            }
            let is_table =
                span.starts_with('[') && span.ends_with(']') && span.contains(|c: char| c.is_ascii_lowercase());
            if is_table && !span.contains(['-', ' ']) && !sample.contains(span) {
                wrong.push(format!("{}: `{span}`: scripts/loaded.toml has no such table", page.path));
            }
        }
    }
    none(wrong);
}

#[test]
fn decisions_are_numbered_listed_and_whole() {
    let list = page("docs/decisions/README.md").text;
    let records = files("docs/decisions").into_iter().filter(|path| !path.ends_with("README.md"));
    let mut wrong = Vec::new();
    for (number, path) in (1..).zip(records) {
        let name = path.rsplit('/').next().unwrap();
        if !name.starts_with(&format!("{number:04}-")) {
            wrong.push(format!("{path}: number {number:04} is expected"));
        }
        if !list.contains(&format!("]({name})")) {
            wrong.push(format!("{path} is not in the list"));
        }
        let text = read(&path);
        let headings: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        if headings != DECISION {
            wrong.push(format!("{path}: the headings are not {DECISION:?}"));
        }
    }
    none(wrong);
}

#[test]
fn the_glossary_has_each_word_once_and_in_order() {
    let glossary = page("docs/glossary.md").text;
    let entries = glossary.lines().filter_map(|line| line.strip_prefix("| **")?.split_once("**"));
    let words: Vec<_> = entries.map(|(word, _)| word).collect();
    let sorted: BTreeSet<_> = words.iter().map(|word| word.to_lowercase()).collect();
    assert!(words.iter().map(|word| word.to_lowercase()).eq(sorted), "{words:?}");
}
