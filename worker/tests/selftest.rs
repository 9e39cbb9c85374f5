//! The self-test's own test: green with the policy of the release, and red as soon as one demand is taken out of it.
//!
//! `harness = false`: the self-test needs a process with one thread and leaves it in its namespaces, so each case is this
//! program, started again with the case's number. It answers nextest's `--list`.
#![allow(clippy::unwrap_used)]

use loaded_sandbox::hostile::Part;
use loaded_sandbox::policy::{Arg, Fd};
use loaded_sandbox::{SandboxPolicy, SandboxRequirement};
use loaded_worker::selftest::{Findings, examine};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

type Case = (&'static str, fn());

const CASES: [Case; 4] = [
    ("the_release_policy_is_green", release),
    ("without_the_range_of_sendmsg_it_is_red", without_the_range),
    ("without_the_descriptor_of_write_it_is_red", without_the_descriptor),
    ("who_is_not_root_is_told", not_root),
];
/// The argument that makes this program run a case itself.
const CASE: &str = "--case";
/// For the whole suite, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    if let [CASE, number] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let (_, case) = CASES[number.parse::<usize>().unwrap()];
        case();
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        // No case is ignored.
        let cases = if has("--ignored") { &[] } else { &CASES[..] };
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        let must = std::env::var_os("LOADED_CI").is_some();
        println!("{}: these tests need root", if must { "FAILED" } else { "skipped" });
        return if must { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let wanted = arguments.iter().find(|a| !a.starts_with('-')).map_or("", String::as_str);
    let matches = |name: &str| if has("--exact") { name == wanted } else { name.contains(wanted) };
    let mut failed = 0;
    for (number, (name, _)) in CASES.iter().enumerate().filter(|(_, (name, _))| matches(name)) {
        let program = std::env::current_exe().unwrap();
        let status = Command::new(program).args([CASE, &number.to_string()]).status().unwrap();
        println!("test {name} ... {}", if status.success() { "ok".to_owned() } else { format!("FAILED: {status}") });
        failed += u8::from(!status.success());
    }
    ExitCode::from(failed)
}

fn release() {
    let start = Instant::now();
    let findings = examine(&SandboxPolicy::worker(), SandboxRequirement::Required).unwrap();
    println!("{findings}");
    assert_eq!(findings.red().count(), 0);
    assert_eq!(findings.changes(), [] as [&str; 0]);
    assert!(start.elapsed() < LIMIT);
}

/// The demand that makes all the difference: `sendmsg` may then name a message of the worker's own.
fn without_the_range() {
    let findings = weakened(Part::Argument("sendmsg", Arg::InTemplates(1)));
    lives(&findings, "nft add table by sendmsg with a msghdr of our own");
    lives(&findings, "conntrack flush by sendmsg");
    lives(&findings, "bind a foreign queue by sendmsg");
    has_effect(&findings);
}

fn without_the_descriptor() {
    let findings = weakened(Part::Argument("write", Arg::FdIs(Fd::Link)));
    lives(&findings, "nft add table by write on the queue");
    has_effect(&findings);
}

fn weakened(part: Part) -> Findings {
    let findings = examine(&SandboxPolicy::worker().without(part), SandboxRequirement::Required).unwrap();
    for row in findings.red() {
        println!("red: {:<52} expected {}, seen {}", row.name, row.expected, row.seen);
    }
    println!("changed outside: {:#?}", findings.changes());
    findings
}

#[track_caller]
fn lives(findings: &Findings, attempt: &str) {
    let row = findings.red().find(|row| row.name == attempt).unwrap_or_else(|| panic!("{attempt} is not red"));
    assert!(row.seen.starts_with("lives"), "{row:?}");
}

/// What the attempt was after is there, for root to see outside: the attempts are no duds, and the watcher is awake.
#[track_caller]
fn has_effect(findings: &Findings) {
    assert!(findings.changes().iter().any(|line| line.starts_with("+ table ip pwned")), "no table in sight");
    for watched in
        ["outside: rule set, by nft", "outside: number of nf_tables changes", "outside: queues and their owners"]
    {
        assert!(findings.red().any(|row| row.name == watched), "{watched} is green");
    }
}

fn not_root() {
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap();
    let error = examine(&SandboxPolicy::worker(), SandboxRequirement::Required).unwrap_err().to_string();
    assert!(error.contains("root"), "{error}");
    assert_eq!(loaded_worker::selftest::run(SandboxRequirement::Required), 1);
}
