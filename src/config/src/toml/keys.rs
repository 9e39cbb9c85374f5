//! Which keys each table has, which are of later versions, and which belong elsewhere: in TOML a key below a header
//! belongs to that table, so one written too far down is in the wrong table.

use super::table::KnownKeys;
use crate::policy;

pub(super) const TOP: KnownKeys = KnownKeys {
    table: "the top level",
    known: &[&[
        "user",
        "cores",
        "queue_base",
        "queue_len",
        "flows",
        "clients",
        "quota",
        "unserved",
        "on_failure",
        "nameservers",
        "drain",
        "stop_hold",
        "defragment",
        "linger",
        "fast",
        "host",
        "log_level",
        "include",
        "metrics",
        "monitor_group",
        "notify",
        "notify_user",
        "service",
    ]],
    later: &[],
    elsewhere: &[
        (&policy::NAMES, IN_SERVICE),
        (&["check", "passive", "discover"], IN_SERVICE),
        (&["no_worker", "queue_full", "receive_overrun", "parse_error"], IN_ON_FAILURE),
        (&["failover"], "into the classic format; here each [[service]] has a check, or -f gives it one"),
        (&["control"], "on the command line"),
    ],
};

pub(super) const SERVICE: KnownKeys = KnownKeys {
    table: "[[service]]",
    known: &[
        &["name", "vip", "protocol", "ports", "port", "mode", "strategy", "seed", "affinity", "check", "passive"],
        &policy::NAMES,
        &["discover", "backend"],
    ],
    later: &["limit"],
    elsewhere: &[
        (
            &[
                "user",
                "cores",
                "queue_base",
                "queue_len",
                "flows",
                "clients",
                "quota",
                "nameservers",
                "unserved",
                "on_failure",
                "drain",
                "stop_hold",
                "fast",
                "log_level",
                "metrics",
                "monitor_group",
                "notify",
                "notify_user",
            ],
            AT_TOP,
        ),
        (&["backup", "weight"], "into a [[service.backend]]"),
    ],
};

pub(super) const INCLUDED: KnownKeys = KnownKeys {
    table: "an included file",
    known: &[&["service", "backend"]],
    later: &[],
    elsewhere: &[(TOP.known[0], IN_MAIN)],
};

pub(super) const INCLUDED_BACKEND: KnownKeys = KnownKeys {
    table: "[[backend]]",
    known: &[&["service"], BACKEND.known[0]],
    later: &[],
    elsewhere: &[(&policy::NAMES, IN_SERVICE), (&["check", "passive", "discover", "strategy", "affinity"], IN_SERVICE)],
};

pub(super) const ON_FAILURE: KnownKeys = KnownKeys {
    table: "[on_failure]",
    known: &[&["no_worker", "queue_full", "receive_overrun", "parse_error"]],
    later: &[],
    elsewhere: &[(&policy::NAMES, IN_SERVICE), (&["unserved"], "to the top level")],
};

pub(super) const QUOTA: KnownKeys =
    KnownKeys { table: "quota", known: &[&["prefix4", "prefix6", "percent"]], later: &[], elsewhere: &[] };

pub(super) const BACKEND: KnownKeys = KnownKeys {
    table: "[[service.backend]]",
    known: &[&["address", "port", "weight", "backup"]],
    later: &[],
    elsewhere: &[
        (&["drain"], AT_TOP),
        (&policy::NAMES, BEFORE_BACKEND),
        (&["check", "passive", "discover", "strategy", "affinity"], BEFORE_BACKEND),
    ],
};

pub(super) const AFFINITY: KnownKeys =
    KnownKeys { table: "affinity", known: &[&["by", "prefix4", "prefix6", "timeout"]], later: &[], elsewhere: &[] };

const IN_ON_FAILURE: &str = "into the table [on_failure]";
const IN_MAIN: &str = "into the file that includes this one";
const IN_SERVICE: &str = "into a [[service]]";
const AT_TOP: &str = "to the top level, above the first [[service]]";
const BEFORE_BACKEND: &str = "into the [[service]], above its first [[service.backend]]";
