//! `scripts/loaded.schema.json`, by which editors complete and check `loaded.toml`. It takes whatever the parser takes: every text
//! that a test here has read is tried ([`agrees`]). It refuses what the parser refuses, but for what no schema can say.
//! `scripts/test scripts` shows the samples to a validator of others.

mod validator;

use std::fs;
use std::sync::LazyLock;
use validator::Schema;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(&fs::read_to_string(format!("{ROOT}/scripts/loaded.schema.json")).unwrap()));

/// What the parser says of mistakes that are beyond a schema: they are in the syntax, depend on several values, on the size of
/// what is in quotes, or on what an address means.
const BEYOND: [&str; 40] = [
    "not TOML",
    "is not a duration from",
    "runs backwards",
    "is not a number",
    "would answer queue",
    "overlap",
    "twice",
    "is named",
    "both claim",
    "is a VIP and cannot be",
    "VIP, but service",
    "backend, but service",
    "backups only",
    "more than",
    "counting those that",
    "is a loopback address",
    "is a multicast address",
    "is the broadcast address",
    "is the unspecified address",
    "which names no host",
    "link-local",
    "in IPv6 form",
    "is not an IP address",
    "host bits set",
    "prefix length",
    "cannot be pass",
    "receive_overrun is",
    "needs one, and service",
    "must be over before",
    "is no port of service",
    "passive needs a port",
    "passive judges by TCP",
    "outside of every",
    "bytes; at most",
    "remove one (see",
    "has no addresses that",
    "SCTP's checksum covers",
    "network, but service",
    "interface is missing",
    "is not where a checker listens",
];

/// What the schema finds wrong in a text; `None`: it is no TOML, or has numbers that JSON has not.
fn complaints(text: &str) -> Option<Vec<String>> {
    toml::from_str(text).ok().map(|value| SCHEMA.complaints(&value))
}

/// The schema says of a text what the parser says; `error`: the parser's.
#[track_caller]
pub(crate) fn agrees(text: &str, error: Option<&str>) {
    let complaints = complaints(text);
    match error {
        None => assert_eq!(complaints, Some(Vec::new()), "the parser takes it:\n{text}"),
        Some(error) if BEYOND.iter().any(|beyond| error.contains(beyond)) => {}
        Some(error) => assert!(complaints.is_none_or(|found| !found.is_empty()), "the parser says {error} of:\n{text}"),
    }
}

#[test]
fn the_sample_fits_the_schema() {
    agrees(&fs::read_to_string(format!("{ROOT}/scripts/loaded.toml")).unwrap(), None);
}

#[test]
fn what_the_schema_finds_has_its_place() {
    let text = "service = [{ name = \"web\", vip = \"192.0.2.100\", protocol = \"tcp\", backend = [{ address = \"a\" }] }]\nfoo = 1";
    let found = complaints(text).unwrap();
    let has = |what: &str| assert!(found.iter().any(|complaint| complaint.starts_with(what)), "{what}: {found:#?}");
    has(": additionalProperties false");
    has(".service[0]: required [\"ports\"]");
    has(".service[0].backend[0].address: pattern");
}
