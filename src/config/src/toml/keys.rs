//! Which keys each table has, which are of later versions, and which belong elsewhere: in TOML a key below a header
//! is that table's, so that one written too far down is in the wrong one.

use super::table::KnownKeys;

pub(super) const TOP: KnownKeys = KnownKeys {
    table: "the top level",
    known: &[
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
        "defragment",
        "linger",
        "service",
    ],
    later: &["metrics"],
    elsewhere: &[
        ("check", IN_SERVICE),
        ("passive", IN_SERVICE),
        ("discover", IN_SERVICE),
        ("on_backend_down", IN_SERVICE),
        ("all_down", IN_SERVICE),
        ("no_worker", IN_ON_FAILURE),
        ("queue_full", IN_ON_FAILURE),
        ("receive_overrun", IN_ON_FAILURE),
        ("parse_error", IN_ON_FAILURE),
        ("panic_threshold", IN_SERVICE),
        ("slow_start", IN_SERVICE),
        ("failover", "into the classic format; here each [[service]] has a check, or -f gives it one"),
        ("control", "on the command line"),
    ],
};

pub(super) const SERVICE: KnownKeys = KnownKeys {
    table: "[[service]]",
    known: &[
        "name",
        "vip",
        "protocol",
        "ports",
        "mode",
        "strategy",
        "seed",
        "affinity",
        "check",
        "passive",
        "on_backend_down",
        "all_down",
        "panic_threshold",
        "slow_start",
        "idle",
        "discover",
        "backend",
    ],
    later: &["limit"],
    elsewhere: &[
        ("user", AT_TOP),
        ("cores", AT_TOP),
        ("queue_base", AT_TOP),
        ("queue_len", AT_TOP),
        ("flows", AT_TOP),
        ("clients", AT_TOP),
        ("quota", AT_TOP),
        ("nameservers", AT_TOP),
        ("unserved", AT_TOP),
        ("on_failure", AT_TOP),
        ("drain", AT_TOP),
        ("backup", "into a [[service.backend]]"),
        ("weight", "into a [[service.backend]]"),
    ],
};

pub(super) const ON_FAILURE: KnownKeys = KnownKeys {
    table: "[on_failure]",
    known: &["no_worker", "queue_full", "receive_overrun", "parse_error"],
    later: &[],
    elsewhere: &[("all_down", IN_SERVICE), ("on_backend_down", IN_SERVICE), ("unserved", "to the top level")],
};

pub(super) const QUOTA: KnownKeys =
    KnownKeys { table: "quota", known: &["prefix4", "prefix6", "percent"], later: &[], elsewhere: &[] };

pub(super) const IDLE: KnownKeys =
    KnownKeys { table: "idle", known: &["tcp", "half_open", "closing", "udp", "echo"], later: &[], elsewhere: &[] };

pub(super) const BACKEND: KnownKeys = KnownKeys {
    table: "[[service.backend]]",
    known: &["address", "weight", "backup"],
    later: &["port"],
    elsewhere: &[
        ("drain", AT_TOP),
        ("check", BEFORE_BACKEND),
        ("passive", BEFORE_BACKEND),
        ("discover", BEFORE_BACKEND),
        ("on_backend_down", BEFORE_BACKEND),
        ("all_down", BEFORE_BACKEND),
        ("panic_threshold", BEFORE_BACKEND),
        ("slow_start", BEFORE_BACKEND),
        ("strategy", BEFORE_BACKEND),
        ("affinity", BEFORE_BACKEND),
    ],
};

pub(super) const AFFINITY: KnownKeys =
    KnownKeys { table: "affinity", known: &["by", "prefix4", "prefix6", "timeout"], later: &[], elsewhere: &[] };

const IN_ON_FAILURE: &str = "into the table [on_failure]";
const IN_SERVICE: &str = "into a [[service]]";
const AT_TOP: &str = "to the top level, above the first [[service]]";
const BEFORE_BACKEND: &str = "into the [[service]], above its first [[service.backend]]";
