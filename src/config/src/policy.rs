//! The keys of a service's policy, one row each: what it is called, how it is read, and how it is put in words. Ranges and
//! defaults stand with [`Policy`]. Only `passive` has no row: it depends on the service's ports and check (`probe`).

use crate::duration::span;
use crate::location::Flaw;
use crate::toml::table::{Item, KnownKeys, boolean, read, seconds};
use loaded_ipc::{AllDown, Idle, MAX_IDLE, Mode, OnBackendDown, Policy};

/// A key of a service's policy.
pub(crate) struct PolicyKey {
    /// Its name in the configuration, and in what a reload changes.
    pub(crate) name: &'static str,
    /// Its name in `--check`, at most ten characters.
    pub(crate) title: &'static str,
    /// Puts its value into a policy. Without the key the default stays.
    pub(crate) read: fn(Item<'_>, &mut Policy) -> Result<(), Flaw>,
    /// Its value in words.
    pub(crate) say: fn(&Policy) -> String,
}

/// In the order of `--check`.
pub(crate) const KEYS: [PolicyKey; 7] = [
    PolicyKey {
        name: "on_backend_down",
        title: "one down",
        read: |item, policy| set(&mut policy.on_backend_down, read(item, read_on_backend_down).map(|at| at.value)),
        say: |policy| say_on_backend_down(policy.on_backend_down),
    },
    PolicyKey {
        name: "all_down",
        title: "all down",
        read: |item, policy| set(&mut policy.all_down, read(item, read_all_down).map(|at| at.value)),
        say: |policy| say_all_down(policy.all_down),
    },
    PolicyKey {
        name: "panic_threshold",
        title: "panic",
        read: |item, policy| set(&mut policy.panic_threshold, item.number(Policy::PANIC_THRESHOLDS)),
        say: |policy| say_panic_threshold(policy.panic_threshold),
    },
    PolicyKey {
        name: "slow_start",
        title: "slow start",
        read: |item, policy| set(&mut policy.slow_start, seconds(item, Policy::SLOW_STARTS)),
        say: |policy| say_slow_start(policy.slow_start),
    },
    PolicyKey {
        name: "idle",
        title: "idle",
        read: |item, policy| set(&mut policy.idle, read_idle(item)),
        say: |policy| say_idle(policy.idle),
    },
    PolicyKey {
        name: "asymmetric",
        title: "asymmetric",
        read: |item, policy| set(&mut policy.asymmetric, boolean(item)),
        say: |policy| say_asymmetric(policy.asymmetric).to_owned(),
    },
    PolicyKey {
        name: "adopt",
        title: "adopt",
        read: |item, policy| set(&mut policy.adopt, boolean(item)),
        say: |policy| say_adopt(policy.adopt).to_owned(),
    },
];

/// The rows that say something of a service in this mode.
pub(crate) fn shown(mode: Mode) -> impl Iterator<Item = &'static PolicyKey> {
    KEYS.iter().filter(move |key| mode == Mode::Nat || !["asymmetric", "adopt"].contains(&key.name))
}

/// The names of the keys.
pub(crate) const NAMES: [&str; KEYS.len()] = {
    let mut names = [""; KEYS.len()];
    let mut n = 0;
    while n < KEYS.len() {
        names[n] = KEYS[n].name;
        n += 1;
    }
    names
};

fn set<T>(field: &mut T, value: Result<T, Flaw>) -> Result<(), Flaw> {
    value.map(|value| *field = value)
}

fn read_on_backend_down(text: &str) -> Result<OnBackendDown, String> {
    match text {
        "reset" => Ok(OnBackendDown::Reset),
        "rehash" => Ok(OnBackendDown::Rehash),
        "drain" => Ok(OnBackendDown::Drain),
        _ => Err(format!("on_backend_down cannot be {text:?}; write reset, rehash or drain")),
    }
}

fn read_all_down(text: &str) -> Result<AllDown, String> {
    match text {
        "reject" => Ok(AllDown::Reject),
        "drop" => Ok(AllDown::Drop),
        "last" => Ok(AllDown::Last),
        _ => Err(format!("all_down cannot be {text:?}; write reject, drop or last")),
    }
}

/// The keys of `idle`.
pub(crate) const IDLE: KnownKeys =
    KnownKeys { table: "idle", known: &[&["tcp", "half_open", "closing", "udp", "echo"]], later: &[], elsewhere: &[] };

fn read_idle(item: Item<'_>) -> Result<Idle, Flaw> {
    let table = item.table(&IDLE)?;
    let time = |key, default| table.optional(key, |item| seconds(item, 1..=MAX_IDLE)).unwrap_or(default);
    let Idle { tcp, half_open, closing, udp, echo } = Idle::STANDARD;
    Ok(Idle {
        tcp: time("tcp", tcp),
        half_open: time("half_open", half_open),
        closing: time("closing", closing),
        udp: time("udp", udp),
        echo: time("echo", echo),
    })
}

fn say_on_backend_down(policy: OnBackendDown) -> String {
    let text = match policy {
        OnBackendDown::Reset => "the client's next packet is answered by a reset",
        OnBackendDown::Rehash => "the flow's next packet goes to another backend",
        OnBackendDown::Drain => "TCP connections stay with it, other flows go to another backend",
    };
    format!("{policy}: {text}")
}

fn say_all_down(policy: AllDown) -> String {
    let text = match policy {
        AllDown::Reject => "new flows are answered by a reset",
        AllDown::Drop => "new flows are dropped",
        AllDown::Last => "new flows go to the backend that was the last to go down",
    };
    format!("{policy}: {text}")
}

fn say_panic_threshold(percent: u8) -> String {
    match percent {
        0 => "never: checks are always believed".to_owned(),
        percent => format!("with fewer than {percent} % up, checks are not believed"),
    }
}

fn say_slow_start(wait: u32) -> String {
    match wait {
        0 => "none: a backend that came up gets its share at once".to_owned(),
        wait => format!("a backend that came up gets its full share after {}", span_of_seconds(wait)),
    }
}

fn say_idle(idle: Idle) -> String {
    let Idle { tcp, half_open, closing, udp, echo } = idle;
    let [tcp, half_open, closing, udp, echo] = [tcp, half_open, closing, udp, echo].map(span_of_seconds);
    format!("flows are forgotten after {tcp} tcp, {half_open} half open, {closing} closing, {udp} udp, {echo} echo")
}

fn say_asymmetric(asymmetric: bool) -> &'static str {
    match asymmetric {
        false => "no: replies come only by an interface that the route to their backend leads through",
        true => "yes: by whatever interface; whoever can send packets in a backend's name is believed",
    }
}

fn say_adopt(adopt: bool) -> &'static str {
    match adopt {
        false => "no: a reply of a connection that is not known here passes as the backend's own",
        true => {
            "yes: a reply of a connection that is not known here begins one where its client gets this backend; others are dropped"
        }
    }
}

fn span_of_seconds(seconds: u32) -> String {
    span(u64::from(seconds) * 1000)
}
