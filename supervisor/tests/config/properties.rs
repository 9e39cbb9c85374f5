//! Properties: no text makes a reader panic; what is written is what is read.

use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, Strategy};
use loaded_supervisor::config::{Overrides, Source, parse};
use loaded_supervisor::plan::{Member, Plan, Service};
use proptest::collection::{btree_set, vec};
use proptest::prelude::{Just, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Values;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

/// Text that comes near to a configuration: lines out of its own pieces.
fn shaped(pieces: &'static [&'static str]) -> impl Values<Value = String> {
    vec(prop_oneof![4 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => any::<String>()], 0..40)
        .prop_map(|pieces| pieces.concat())
}

const CLASSIC: &[&str] = &[
    "VIP4=",
    "VIP6=",
    "server4=",
    "server6=",
    "NS",
    "=",
    " ",
    "\t",
    "\n",
    "\r\n",
    "#",
    "# loaded: script\n",
    "192.0.2.1",
    "10.0.0.1",
    "2001:db8::1",
    "/24",
    "RIP4=",
    "RIP6=",
    "private_GW=",
    "FIRST_CORE=1\n",
    "LAST_CORE=2\n",
    "strategy=rr\n",
    "failover",
    "\"",
    "$",
    "ü",
    "VIP_4",
    "export ",
    "\0",
];

const TOML: &[&str] = &[
    "[[service]]\n",
    "[[service.backend]]\n",
    "name = ",
    "vip = ",
    "\"192.0.2.1\"",
    "\"10.0.0.1\"",
    "\n",
    "ports = ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "80",
    "\"any\"",
    "protocol = \"tcp\"\n",
    "affinity = ",
    "by = ",
    "timeout = \"1h\"",
    "address = ",
    "\"\"",
    "weight = ",
    "-1",
    "cores = \"1-2\"\n",
    "\"ü\"",
    "99999999999999999999",
    "check = ",
    "'",
    "#",
    "1.5",
    "true",
];

/// Whatever happens, the error names a place in the text.
fn survives(name: &str, text: &str) {
    match parse(&[Source::new(name, text)], &Overrides::default()) {
        Ok(loaded) => assert_invariants(&loaded.plan),
        Err(error) => assert!(error.to_string().starts_with(&format!("{name}:")), "{error}"),
    }
}

/// What the plan's documentation promises.
fn assert_invariants(plan: &Plan) {
    assert!(!plan.services.is_empty() && !plan.backends.is_empty());
    let distinct: BTreeSet<_> = plan.backends.iter().collect();
    assert_eq!(distinct.len(), plan.backends.len());
    for service in &plan.services {
        assert!(service.vips.iter().all(|vip| !plan.backends.contains(vip)));
        let addresses: Vec<IpAddr> =
            service.members.iter().map(|member| plan.address(member.backend).unwrap()).collect();
        for v4 in [true, false] {
            let has = |list: &[IpAddr]| list.iter().any(|address| address.is_ipv4() == v4);
            assert_eq!(has(&service.vips), has(&addresses));
        }
        assert!(service.protocol != Protocol::Any || service.ports.is_empty());
        assert!(service.ports.windows(2).all(|pair| pair[0].high < pair[1].low));
    }
}

fn hosts4(least: usize) -> impl Values<Value = BTreeSet<IpAddr>> {
    btree_set((0x0a00_0001..0x0aff_ffff_u32).prop_map(|bits| IpAddr::V4(bits.into())), least..20)
}

fn hosts6(least: usize) -> impl Values<Value = BTreeSet<IpAddr>> {
    let host = any::<u64>().prop_map(|low| IpAddr::V6(((0x2001_0db8_u128 << 96) | u128::from(low)).into()));
    btree_set(host, least..20)
}

fn strategy() -> impl Values<Value = Strategy> {
    let seeded = (0..=i64::MAX.unsigned_abs()).prop_map(|seed| Strategy::Maglev { seed });
    prop_oneof![Just(Strategy::RoundRobin), Just(Strategy::Weighted), seeded]
}

fn affinity() -> impl Values<Value = Option<Affinity>> {
    let some = (1..=32u8, 1..=128u8, 1..=31_536_000u32);
    prop::option::of(some.prop_map(|(prefix4, prefix6, timeout)| Affinity { prefix4, prefix6, timeout }))
}

fn ports() -> impl Values<Value = Vec<PortRange>> {
    // Cut points, taken in pairs, never overlap.
    btree_set(1..=u16::MAX, 0..20).prop_map(|cuts| {
        let cuts: Vec<u16> = cuts.into_iter().collect();
        cuts.chunks_exact(2).map(|pair| PortRange { low: pair[0], high: pair[1] }).collect()
    })
}

fn write_toml(service: &Service, backends: &[IpAddr]) -> String {
    let mut text = format!("[[service]]\nname = {:?}\nvip = [", service.name);
    for vip in &service.vips {
        write!(text, "\"{vip}\",").unwrap();
    }
    writeln!(text, "]\nprotocol = \"{}\"", service.protocol).unwrap();
    let ports: Vec<String> = service.ports.iter().rev().map(|port| format!("\"{port}\"")).collect();
    match ports.as_slice() {
        [] => writeln!(text, "ports = \"any\"").unwrap(),
        ports => writeln!(text, "ports = [{}]", ports.join(", ")).unwrap(),
    }
    match service.strategy {
        Strategy::Maglev { seed } => writeln!(text, "strategy = \"maglev\"\nseed = {seed}").unwrap(),
        other => writeln!(text, "strategy = \"{other}\"").unwrap(),
    }
    match service.affinity {
        None => writeln!(text, "affinity = \"none\"").unwrap(),
        Some(Affinity { prefix4, prefix6, timeout }) => writeln!(
            text,
            "affinity = {{ by = \"client\", prefix4 = {prefix4}, prefix6 = {prefix6}, timeout = \"{timeout}s\" }}"
        )
        .unwrap(),
    }
    for member in &service.members {
        let address = backends[usize::from(member.backend.0)];
        writeln!(text, "[[service.backend]]\naddress = \"{address}\"\nweight = {}", member.weight).unwrap();
    }
    text
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        survives("f", &text);
        survives("f.toml", &text);
    }

    #[test]
    fn no_classic_text_panics(text in shaped(CLASSIC)) {
        survives("f", &text);
    }

    #[test]
    fn no_toml_text_panics(text in shaped(TOML)) {
        survives("f.toml", &text);
    }

    #[test]
    fn classic_reads_what_was_written(
        four in hosts4(2), six in hosts6(2), first in 0..100u16, more in 0..100u16, queue_len in 1..=10_485_760u32,
        blanks in "[ \t]{0,3}", tail in "([ \t]{1,3}(#[ -~]{0,10})?)?",
    ) {
        let (vip4, servers4) = (four.first().unwrap(), four.iter().skip(1));
        let (vip6, servers6) = (six.first().unwrap(), six.iter().skip(1));
        let mut lines = vec![
            format!("VIP4={vip4}"), format!("VIP6={vip6}"), format!("FIRST_CORE={first}"),
            format!("LAST_CORE={}", first + more), format!("nfq_len={queue_len}"),
        ];
        lines.extend(servers4.clone().map(|server| format!("server4={server}")));
        lines.extend(servers6.clone().map(|server| format!("server6={server}")));
        let text: String = lines.iter().map(|line| format!("{blanks}{line}{tail}\n")).collect();
        let plan = parse(&[Source::new("f", &*text)], &Overrides::default()).unwrap().plan;
        prop_assert_eq!(&plan.services[0].vips, &[*vip4, *vip6]);
        prop_assert_eq!(plan.backends, servers4.chain(servers6).copied().collect::<Vec<_>>());
        prop_assert_eq!((plan.cores, plan.queue_len), (Some((first, first + more)), queue_len));
    }

    #[test]
    fn toml_reads_what_was_written(
        hosts in hosts4(2), strategy in strategy(), affinity in affinity(), ports in ports(),
        weights in vec(1..=256u16, 20), udp in any::<bool>(), name in "[A-Za-z0-9._-]{1,64}",
    ) {
        let backends: Vec<IpAddr> = hosts.iter().skip(1).copied().collect();
        let member = |(index, weight)| Member { backend: BackendIndex(index), weight };
        let service = Service {
            name,
            vips: hosts.iter().take(1).copied().collect(),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            ports,
            strategy,
            affinity,
            members: (0..).zip(weights).take(backends.len()).map(member).collect(),
        };
        let text = write_toml(&service, &backends);
        let plan = parse(&[Source::new("f.toml", &*text)], &Overrides::default()).unwrap().plan;
        prop_assert_eq!(&plan.services[0], &service);
        prop_assert_eq!(&plan.backends, &backends);
    }
}
