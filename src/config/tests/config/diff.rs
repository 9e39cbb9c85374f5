//! What a reload would change.

use crate::plan;
use loaded_config::plan::{Failures, Plan, diff, immutable_change};
use loaded_ipc::OnFailure;

fn base() -> String {
    "drain = \"5m\"\nnameservers = [\"192.0.2.53\"]\n[[service]]\nname = \"web\"\nvip = [\"192.0.2.100\"]\nprotocol = \"tcp\"\n\
     ports = [80]\nstrategy = \"rr\"\ncheck = { kind = \"tcp\" }\n[[service.backend]]\naddress = \"198.51.100.11\"\n\
     weight = 1\n[[service.backend]]\naddress = \"198.51.100.12\"\n"
        .to_owned()
}

fn lines(old: &Plan, new: &Plan) -> Vec<String> {
    diff(old, new).iter().map(ToString::to_string).collect()
}

/// The lines for one replacement in the base.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(base().contains(from), "{from}");
    lines(&plan("f.toml", &base()), &plan("f.toml", &base().replace(from, to)))
}

#[test]
fn nothing_changes_nothing() {
    assert_eq!(changed("rr", "rr"), [""; 0]);
    let plan = plan("f.toml", &base());
    let mut other = plan.clone();
    other.services[0].backends.reverse();
    assert_eq!(diff(&plan, &other), []);
    assert_eq!(immutable_change(&plan, &other), None);
}

#[test]
fn each_change_is_a_line_for_the_operator() {
    for (from, to, expected) in [
        ("weight = 1", "weight = 3", "service web: backend 198.51.100.11: weight 1 \u{2192} 3"),
        ("\"rr\"", "\"weighted\"", "service web: strategy rr \u{2192} weighted"),
        (
            "[80]",
            "[80]\nall_down = \"drop\"",
            "service web: all_down reject: new flows are answered by a reset \u{2192} drop: new flows are dropped",
        ),
        (
            "[80]",
            "[80]\nslow_start = \"5s\"",
            "service web: slow_start none: a backend that came up gets its share at once \u{2192} a backend that came up gets its full share after 5s",
        ),
        (
            "[80]",
            "[80]\npanic_threshold = 9",
            "service web: panic_threshold never: checks are always believed \u{2192} with fewer than 9 % up, checks are not believed",
        ),
        (
            "[80]",
            "[80]\naffinity = \"none\"",
            "service web: affinity a client (IPv4 /32, IPv6 /64) keeps its backend until 1h after its last packet \u{2192} none: each flow is balanced by itself",
        ),
        (
            "[80]",
            "[80]\npassive = false",
            "service web: passive 3 connection attempts refused, or unanswered for 500ms: no new flows for 10s \u{2192} none: workers do not judge backends by their packets",
        ),
        (
            "[80]",
            "[80]\non_backend_down = \"drain\"",
            "service web: on_backend_down reset: the client's next packet is answered by a reset \u{2192} drain: TCP connections stay with it, other flows go to another backend",
        ),
        ("\"5m\"", "\"1m\"", "drain 5m \u{2192} 1m"),
        (
            "drain = ",
            "quota = { prefix4 = 32, percent = 5 }\ndrain = ",
            "quota a source /24 (IPv4) or /48 (IPv6) keeps 2 % of the flows once half of them are open \u{2192} a source /32 (IPv4) or /48 (IPv6) keeps 5 % of the flows once half of them are open",
        ),
        ("drain = ", "unserved = \"drop\"\ndrain = ", "unserved pass \u{2192} drop"),
        (
            "\"tcp\" }",
            "\"tcp\", fall = 2 }",
            "service web: check connection to tcp port 80 every 2s or up to 10 % sooner, failed after 1s; down after 3 failures, up after 2 successes \u{2192} connection to tcp port 80 every 2s or up to 10 % sooner, failed after 1s; down after 2 failures, up after 2 successes",
        ),
        ("[\"192.0.2.53\"]", "[\"192.0.2.53\", \"192.0.2.54\"]", "name server 192.0.2.54 is added"),
        ("[\"192.0.2.100\"]", "[\"192.0.2.100\", \"192.0.2.101\"]", "service web: VIP 192.0.2.101 is added"),
        ("weight = 1\n", "weight = 1\nbackup = true\n", "service web: backend 198.51.100.11 becomes a backup"),
        (
            "weight = 1\n",
            "weight = 1\n[[service.backend]]\naddress = \"198.51.100.13\"\nbackup = true\n",
            "service web: backend 198.51.100.13 is added (weight 1, backup)",
        ),
    ] {
        assert_eq!(changed(from, to), [expected], "{to}");
    }
    let mode = changed("[80]", "[80]\nmode = \"dsr\"");
    assert_eq!(mode.first().map(String::as_str), Some("service web: mode nat \u{2192} dsr"), "{mode:?}");
    let ports = changed("[80]\n", "[443]\n").join("\n");
    assert!(ports.contains("ports tcp on port 80 \u{2192} tcp on port 443"), "{ports}");
    let found = changed("[80]", "[80]\ndiscover = { network = \"198.51.100.0/24\" }");
    assert_eq!(
        found,
        [
            "service web: discover none \u{2192} 198.51.100.0/24, asked by 198.51.100.255, every 10s, at most 64 backends"
        ]
    );
}

#[test]
fn what_goes_drains() {
    assert_eq!(
        changed("198.51.100.12", "198.51.100.13"),
        [
            "service web: backend 198.51.100.12 is removed: drains for 5m",
            "service web: backend 198.51.100.13 is added (weight 1)"
        ]
    );
    assert_eq!(
        changed("192.0.2.100", "192.0.2.101"),
        [
            "service web: VIP 192.0.2.100 is removed: its flows may continue for 5m",
            "service web: VIP 192.0.2.101 is added"
        ]
    );
    assert_eq!(
        changed("\"web\"", "\"www\""),
        ["service web: removed: its flows may continue for 5m", "service www: added on 192.0.2.100 with 2 backends"]
    );
}

#[test]
fn what_fails_open_can_be_changed_but_for_the_queue_itself() {
    let old = plan("f.toml", &base());
    let on_failure = Failures { no_worker: OnFailure::Pass, parse_error: OnFailure::Pass, ..Failures::CLOSED };
    let new = Plan { on_failure, ..old.clone() };
    let expected = ["on_failure.no_worker drop \u{2192} pass", "on_failure.parse_error drop \u{2192} pass"];
    assert_eq!(lines(&old, &new), expected);
    assert_eq!(immutable_change(&old, &new), None);
}

#[test]
fn what_needs_a_restart_is_told() {
    let old = plan("f.toml", &base());
    let new = Plan { user: "www".to_owned(), cores: Some((1, 2)), flows: 1024, ..old.clone() };
    assert_eq!(diff(&old, &new), []);
    assert_eq!(
        immutable_change(&old, &new).unwrap(),
        "user nobody \u{2192} www, cores every core \u{2192} cores 1-2, flows 262144 \u{2192} 1024 cannot change while loaded runs; \
         restart to change it"
    );
    for new in [
        Plan { queue_base: 5, ..old.clone() },
        Plan { queue_len: 5, ..old.clone() },
        Plan { clients: 2048, ..old.clone() },
        Plan { defragment: false, ..old.clone() },
        Plan { on_failure: Failures { queue_full: OnFailure::Pass, ..Failures::CLOSED }, ..old.clone() },
    ] {
        assert!(immutable_change(&old, &new).is_some());
    }
}
