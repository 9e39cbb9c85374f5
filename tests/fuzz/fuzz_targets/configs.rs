//! Any text as a configuration, classic or TOML: an error names its place; a plan holds what it promises, and a worker
//! takes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loaded_config::plan::{Plan, diff, immutable_change};
use loaded_config::{Families, Overrides, Source, parse};
use loaded_ipc::Protocol;
use loaded_supervisor::briefing;
use loaded_worker::setup::Assembly;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the plan's documentation promises.
fn assert_invariants(plan: &Plan) {
    assert!(!plan.services.is_empty() && plan.user != "root");
    let vips: BTreeSet<IpAddr> = plan.services.iter().flat_map(|service| service.vips.clone()).collect();
    for service in &plan.services {
        let addresses: BTreeSet<IpAddr> = service.backends.iter().map(|backend| backend.address).collect();
        assert_eq!(addresses.len(), service.backends.len());
        assert!(addresses.is_disjoint(&vips));
        assert!(service.backends.iter().all(|backend| (1..=256).contains(&backend.weight)));
        assert!(service.protocol != Protocol::Any || service.ports.is_empty());
        assert!(service.ports.iter().all(|port| port.low <= port.high));
        assert!(service.ports.windows(2).all(|pair| pair[0].high < pair[1].low));
        assert!(service.discover.is_none() || service.check.is_some());
        if let Some(check) = &service.check {
            assert!(check.timeout <= check.interval.min(check.interval_down) && check.rise > 0 && check.fall > 0);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((options, text)) = bytes.split_first() else { return };
    // As the file is read: a byte that is no text becomes a mark.
    let text = String::from_utf8_lossy(text);
    let name = if options & 1 == 0 { "f" } else { "f.toml" };
    let families = [Families::Both, Families::V4, Families::V6, Families::Both][usize::from(options >> 1 & 3)];
    let overrides = Overrides { families, failover: options & 8 != 0, ..Overrides::default() };
    let mut sources = vec![Source::new(name, &*text)];
    // Several classic files are one configuration.
    if options & 17 == 16 {
        let half = text.floor_char_boundary(text.len() / 2);
        sources = vec![Source::new(name, &text[..half]), Source::new("g", &text[half..])];
    }
    // A TOML file may include another.
    if options & 17 == 17 {
        let half = text.find("\n#\n").unwrap_or(text.len());
        sources = vec![Source::new(name, &text[..half]), Source::new("g", &text[half..]).included()];
    }
    let loaded = match parse(&sources, &overrides) {
        Ok(loaded) => loaded,
        Err(error) => {
            let error = error.to_string();
            assert!(["f:", "g:", "f.toml:", "-4:", "-6:"].iter().any(|place| error.starts_with(place)), "{error}");
            return;
        }
    };
    let plan = &loaded.plan;
    assert_invariants(plan);
    assert!(!plan.to_string().is_empty());
    assert!(diff(plan, plan).is_empty() && immutable_change(plan, plan).is_none());
    let briefing = briefing(plan).expect("a plan has numbers enough");
    let (mut assembly, mut setups) = (Assembly::default(), 0);
    for message in briefing.messages {
        setups += usize::from(assembly.take(message, 0).expect("a worker takes what a plan says").is_some());
    }
    assert_eq!(setups, 1);
});
