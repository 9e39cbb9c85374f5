//! The shape of the source tree, from `cargo metadata`, `cargo tree` and the source text. Dependencies go one way, main →
//! roles → src/* → libraries; the two tables below are all there are. Whoever wants another dependency changes a table, and
//! a reviewer sees it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "shape/circles.rs"]
mod circles;
#[path = "shape/names.rs"]
mod names;
#[path = "shape/sizes.rs"]
mod sizes;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate, and all crates of ours that it depends on (beside tests). No role on a role; below the roles,
/// configuration and control socket know nothing but `ipc`.
const DEPENDENCIES: [(&str, &[&str]); 21] = [
    (
        "loaded",
        &[
            "loaded-config",
            "loaded-control",
            "loaded-exporter",
            "loaded-firewall",
            "loaded-host",
            "loaded-ipc",
            "loaded-migrate",
            "loaded-netfilter",
            "loaded-prober",
            "loaded-queue",
            "loaded-sandbox",
            "loaded-supervisor",
            "loaded-table",
            "loaded-worker",
        ],
    ),
    (
        "loaded-supervisor",
        &[
            "loaded-children",
            "loaded-config",
            "loaded-control",
            "loaded-firewall",
            "loaded-fastpath",
            "loaded-handover",
            "loaded-host",
            "loaded-ipc",
            "loaded-netfilter",
            "loaded-process",
            "loaded-queue",
            "loaded-roster",
            "loaded-sandbox",
            "loaded-table",
        ],
    ),
    ("loaded-worker", &["loaded-fastpath", "loaded-ipc", "loaded-queue", "loaded-sandbox", "loaded-table"]),
    ("loaded-prober", &["loaded-ipc", "loaded-sandbox"]),
    ("loaded-exporter", &["loaded-ipc", "loaded-sandbox"]),
    (
        "loaded-handover",
        &[
            "loaded-children",
            "loaded-config",
            "loaded-control",
            "loaded-fastpath",
            "loaded-host",
            "loaded-ipc",
            "loaded-netfilter",
            "loaded-process",
            "loaded-queue",
            "loaded-roster",
            "loaded-sandbox",
            "loaded-table",
        ],
    ),
    (
        "loaded-children",
        &[
            "loaded-config",
            "loaded-control",
            "loaded-fastpath",
            "loaded-host",
            "loaded-ipc",
            "loaded-queue",
            "loaded-roster",
            "loaded-sandbox",
            "loaded-table",
        ],
    ),
    ("loaded-process", &["loaded-config", "loaded-sandbox"]),
    ("loaded-roster", &["loaded-config", "loaded-ipc", "loaded-netfilter"]),
    ("loaded-firewall", &["loaded-config", "loaded-host", "loaded-ipc", "loaded-netfilter"]),
    ("loaded-netfilter", &["loaded-config", "loaded-ipc", "loaded-netlink", "loaded-queue"]),
    ("loaded-migrate", &["loaded-config", "loaded-ipc"]),
    ("loaded-host", &["loaded-config", "loaded-ipc", "loaded-netlink"]),
    ("loaded-config", &["loaded-ipc"]),
    ("loaded-control", &["loaded-ipc"]),
    // netlink: to attach, as a feature that no child has.
    ("loaded-fastpath", &["loaded-netlink", "loaded-table"]),
    ("loaded-ipc", &[]),
    ("loaded-netlink", &[]),
    ("loaded-queue", &[]),
    ("loaded-sandbox", &[]),
    ("loaded-table", &[]),
];

/// Libraries that only these crates may name.
const LIBRARIES: [(&str, &[&str]); 18] = [
    ("annotate-snippets", &["loaded-config"]),
    // As a feature that no child has.
    ("aya", &["loaded-fastpath"]),
    ("aya-obj", &["loaded-fastpath"]),
    ("clap", &["loaded"]),
    ("glob", &["loaded-config"]),
    ("httparse", &["loaded-exporter"]),
    ("landlock", &["loaded-sandbox"]),
    ("netlink-packet-core", &["loaded-netlink"]),
    ("pcap-parser", &["loaded"]),
    ("seccompiler", &["loaded-sandbox"]),
    // ipc: for the journal alone, as a feature that no child has.
    (
        "serde",
        &[
            "loaded",
            "loaded-config",
            "loaded-control",
            "loaded-firewall",
            "loaded-handover",
            "loaded-host",
            "loaded-ipc",
            "loaded-netfilter",
            "loaded-roster",
        ],
    ),
    ("serde_json", &["loaded", "loaded-control", "loaded-firewall", "loaded-handover"]),
    ("signal-hook", &["loaded", "loaded-process"]),
    ("terminal_size", &["loaded"]),
    ("toml", &["loaded-config"]),
    ("toml_edit", &["loaded-config"]),
    ("toml_writer", &["loaded-migrate"]),
    (
        "log",
        &[
            "loaded-children",
            "loaded-control",
            "loaded-handover",
            "loaded-host",
            "loaded-netfilter",
            "loaded-process",
            "loaded-supervisor",
        ],
    ),
];

/// What a child links by no way at all, however indirect: parsers, another role, and what only the supervisor needs. A name
/// stands for all that begin with it.
const NOT_IN_A_CHILD: [&str; 27] = [
    "annotate-snippets",
    "aya",
    "clap",
    "config",
    "glob",
    "loaded-children",
    "loaded-config",
    "loaded-control",
    "loaded-firewall",
    "loaded-handover",
    "loaded-host",
    "loaded-migrate",
    "loaded-netfilter",
    "loaded-netlink",
    "loaded-process",
    "loaded-roster",
    "loaded-supervisor",
    "log",
    "netlink-packet-core",
    "nom",
    "pest",
    "serde",
    "signal-hook",
    "strsim",
    "syslog",
    "toml",
    "winnow",
];

/// Crates with unsafe code. In every other the compiler forbids it.
const UNSAFE: [&str; 4] = ["src/queue", "src/sandbox", "src/table", "src/fastpath"];

/// Words of the wall clock, which may be set by any amount at any time. Packets and backends go by the monotonic clock;
/// the control socket's history tells people when something was, and so does the count of late checks.
const WALL_CLOCK: [&str; 8] = [
    "SystemTime",
    "UNIX_EPOCH",
    "CLOCK_REALTIME",
    "CLOCK_REALTIME_COARSE",
    "CLOCK_TAI",
    "Utc",
    "OffsetDateTime",
    "gettimeofday",
];

#[test]
fn crates_depend_on_what_the_table_says() {
    let mut found = crates();
    for dependencies in found.values_mut() {
        dependencies.retain(|name| name.starts_with("loaded"));
    }
    let allowed: BTreeMap<String, BTreeSet<String>> = DEPENDENCIES
        .iter()
        .map(|(name, all)| ((*name).to_owned(), all.iter().map(ToString::to_string).collect()))
        .collect();
    let names = |map: &BTreeMap<String, BTreeSet<String>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&allowed), "the workspace's crates");
    for (name, dependencies) in &found {
        let extra: Vec<_> = dependencies.difference(&allowed[name]).collect();
        let gone: Vec<_> = allowed[name].difference(dependencies).collect();
        assert!(extra.is_empty(), "{name} must not depend on {extra:?}");
        assert!(gone.is_empty(), "{name} no longer depends on {gone:?}: take it out of DEPENDENCIES");
    }
}

#[test]
fn roles_do_not_depend_on_roles() {
    const ROLES: [&str; 4] = ["loaded-exporter", "loaded-prober", "loaded-supervisor", "loaded-worker"];
    for (name, dependencies) in DEPENDENCIES.iter().filter(|(name, _)| *name != "loaded") {
        let roles: Vec<_> = dependencies.iter().filter(|other| ROLES.contains(other)).collect();
        assert!(roles.is_empty(), "{name} is allowed {roles:?}");
    }
}

#[test]
fn libraries_are_named_by_those_that_may() {
    for (name, dependencies) in crates() {
        for (library, users) in LIBRARIES {
            let may = users.contains(&name.as_str());
            assert!(may || !dependencies.contains(library), "{name} must not depend on {library}");
        }
    }
}

#[test]
fn children_link_no_parser_and_no_other_role() {
    const CHILDREN: [&str; 3] = ["loaded-exporter", "loaded-prober", "loaded-worker"];
    for child in CHILDREN {
        let tree = cargo(&["tree", "-p", child, "-e", "normal", "--prefix", "none"]);
        let linked: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(linked.contains("nix"), "{child}: cargo tree was not understood: {linked:?}");
        let others = CHILDREN.iter().filter(|other| **other != child);
        let barred = |name: &&&str| {
            others.clone().any(|other| *name == other) || NOT_IN_A_CHILD.iter().any(|start| name.starts_with(start))
        };
        let found: Vec<_> = linked.iter().filter(barred).collect();
        assert!(found.is_empty(), "{child} links {found:?}");
    }
}

/// But for the journal's serde and the loader of the kernel path, each feature of ours is for tests: weaker sandboxes, hostile children, other tables.
#[test]
fn the_program_is_built_without_features_for_tests() {
    let tree = cargo(&["tree", "-p", "loaded", "-e", "normal", "--prefix", "none", "-f", "{p}|{f}"]);
    let mut ours = 0;
    for line in tree.lines().filter(|line| line.starts_with("loaded")) {
        let (package, features) = line.split_once('|').unwrap();
        let features = features.trim_end_matches("(*)").trim();
        let journal = package.starts_with("loaded-ipc ") && features == "serde";
        let loader = package.starts_with("loaded-fastpath ") && features == "load";
        assert!(features.is_empty() || journal || loader, "{package} has the features {features}");
        ours += 1;
    }
    assert!(ours >= DEPENDENCIES.len(), "cargo tree was not understood: {tree}");
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    let roots = [
        "src/ipc",
        "src/netlink",
        "src/config",
        "src/control",
        "src/netfilter",
        "src/host",
        "src/migrate",
        "src/roster",
        "src/firewall",
        "src/process",
        "src/children",
        "src/handover",
        "supervisor",
        "worker",
        "prober",
        "exporter",
    ];
    let roots = roots.map(|folder| format!("{folder}/src/lib.rs"));
    for root in roots.iter().map(String::as_str).chain(["src/main.rs"]) {
        let text = fs::read_to_string(house().join(root)).unwrap();
        assert!(text.lines().any(|line| line == "#![forbid(unsafe_code)]"), "{root} does not forbid unsafe code");
    }
    assert_eq!(roots.len() + 1 + UNSAFE.len(), DEPENDENCIES.len(), "each crate either forbids it or may have it");
    // Tests and benchmarks are crates of their own, which nothing forbids it.
    for (file, text) in sources(&["src", "supervisor", "worker", "prober", "exporter", "tests"]) {
        let names_it = file == Path::new("tests/shape.rs") || file.starts_with("tests/shape");
        let may = UNSAFE.iter().any(|folder| file.starts_with(folder)) || names_it;
        let found = code(&text).find(|line| words(line).any(|word| word == "unsafe"));
        assert!(may || found.is_none(), "{}: {}", file.display(), found.unwrap_or_default());
    }
}

#[test]
fn what_decides_does_not_look_at_the_wall_clock() {
    for (file, text) in sources(&["worker", "prober", "exporter", "src"]) {
        let found = text.lines().find(|line| words(line).any(|word| WALL_CLOCK.contains(&word)));
        let may = file.starts_with("src/control") || file == Path::new("src/children/src/late.rs");
        assert!(may || found.is_none(), "{}: {}", file.display(), found.unwrap_or_default());
    }
}

/// Each crate of the workspace with everything that it, not its tests, depends on.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).expect("metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter().filter(|other| other["kind"] != "dev").map(|other| text(&other["name"])).collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (text(&package["name"]), dependencies(package))).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).args(["--locked", "--offline"]).current_dir(house()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn house() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of Rust below these folders, by its path in the house, with its text. The fuzz targets are another house.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| house().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((path.strip_prefix(house()).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() >= 3, "only {} files were found", files.len());
    files
}

/// A file without the tests at its end.
fn without_tests(text: &str) -> &str {
    text.split("\nmod tests {").next().unwrap()
}

/// Lines that are no comment as a whole.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}
