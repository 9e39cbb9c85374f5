//! Properties: no text makes a reader panic; what is written is what is read.

use loaded_config::network::Network;
use loaded_config::plan::{
    Backend, Discover, Failures, Fast, HostPolicy, LogLevel, MetricsAddress, Place, Plan, Service, diff,
    immutable_change, written,
};
use loaded_config::{Overrides, Source, load, parse};
use loaded_ipc::{
    Affinity, AllDown, Check, CheckKind, Idle, Mode, OnBackendDown, OnFailure, Passive, Policy, PortRange, Protocol,
    Quota, Strategy, Unserved,
};
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
    "RIP4=10.0.0.0/8\n",
    "broadcast=10.255.255.255\n",
    "broadcast=ff02::1\n",
    "port_alive=80\n",
    "check_cycle=",
    "private_NIC=eth1\n",
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
    "{ kind = \"tcp\" }\n",
    "{ kind = \"dns\", name = ",
    "passive = ",
    "asymmetric = ",
    "adopt = ",
    "discover = ",
    "{ network = \"10.0.0.0/8\" }\n",
    "[service.check]\n",
    "kind = \"http\"\n",
    "timeout = ",
    "\"500ms\"\n",
    "backup = true\n",
    "'",
    "#",
    "1.5",
    "true",
];

/// Whatever happens, the error names a place in the text.
fn survives(name: &str, text: &str) {
    for failover in [false, true] {
        match parse(&[Source::new(name, text)], &Overrides { failover, ..Overrides::default() }) {
            Ok(loaded) => assert_invariants(&loaded.plan),
            Err(error) => assert!(error.to_string().starts_with(&format!("{name}:")), "{error}"),
        }
    }
}

/// What the plan's documentation promises.
fn assert_invariants(plan: &Plan) {
    assert!(!plan.services.is_empty());
    let vips: BTreeSet<IpAddr> = plan.services.iter().flat_map(|service| service.vips.clone()).collect();
    for service in &plan.services {
        let addresses: Vec<IpAddr> = service.backends.iter().map(|backend| backend.address).collect();
        let distinct: BTreeSet<_> = addresses.iter().collect();
        assert_eq!(distinct.len(), addresses.len());
        assert!(addresses.iter().all(|address| !vips.contains(address)));
        let places: Vec<IpAddr> =
            service.discover.iter().flat_map(|discover| &discover.places).map(|place| place.network.first()).collect();
        let primaries = service.backends.iter().filter(|backend| !backend.backup).map(|backend| backend.address);
        let able: Vec<IpAddr> = primaries.chain(places.iter().copied()).collect();
        for v4 in [true, false] {
            let has = |list: &[IpAddr]| list.iter().any(|address| address.is_ipv4() == v4);
            assert_eq!(has(&service.vips), has(&able));
            assert!(has(&service.vips) || !has(&addresses));
        }
        assert!(service.protocol != Protocol::Any || service.ports.is_empty());
        assert!(service.ports.windows(2).all(|pair| pair[0].high < pair[1].low));
        assert!(service.discover.is_none() || service.check.is_some());
        if let Some(check) = &service.check {
            assert!(check.timeout <= check.interval.min(check.interval_down) && check.rise > 0 && check.fall > 0);
        }
        let one_port = matches!(service.ports.as_slice(), [port] if port.low == port.high);
        assert!(service.policy.passive.is_none_or(|passive| passive.port.is_some() || one_port));
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

fn check() -> impl Values<Value = Check> {
    let port = 1..=u16::MAX;
    let bytes = || vec(any::<u8>(), 0..=128);
    let http = (port.clone(), "[A-Z]{1,16}", "/[!-~]{0,127}", "[a-z0-9.:-]{1,128}", 200..=599u16, 0..=499u16).prop_map(
        |(port, method, path, host, low, more)| CheckKind::Http {
            port,
            method,
            path,
            host,
            status: (low, (low + more).min(599)),
            via: (more % 3 == 0).then(|| ([127, 0, 0, 1], low).into()),
        },
    );
    let kind = prop_oneof![
        Just(CheckKind::Icmp),
        port.clone().prop_map(|port| CheckKind::Tcp { port }),
        port.clone().prop_map(|port| CheckKind::IcmpTcp { port }),
        http,
        (port.clone(), bytes(), bytes()).prop_map(|(port, send, expect)| CheckKind::Udp { port, send, expect }),
        (port, "[a-z0-9_-]{1,63}([.][a-z0-9_-]{1,63})?[.]?").prop_map(|(port, name)| CheckKind::Dns { port, name }),
    ];
    (kind, 100..=86_400_000u32, 100..=86_400_000u32, 10..=60_000u32, 0..=50u8, 1..=u8::MAX, 1..=u8::MAX).prop_map(
        |(kind, interval, interval_down, timeout, jitter, rise, fall)| {
            let timeout = timeout.min(interval).min(interval_down);
            Check { kind, interval, interval_down, timeout, jitter, rise, fall }
        },
    )
}

/// Its port is one of the service, or any where the service has all.
fn policy(ports: &[PortRange]) -> impl Values<Value = Policy> + use<> {
    let down = prop_oneof![Just(OnBackendDown::Reset), Just(OnBackendDown::Rehash), Just(OnBackendDown::Drain)];
    let all = prop_oneof![Just(AllDown::Reject), Just(AllDown::Drop), Just(AllDown::Last)];
    let port = ports.first().map_or(80, |port| port.high);
    let passive = (1..=u8::MAX, 50..=60_000u32, 1..=3600u32).prop_map(move |(fails, timeout, hold)| Passive {
        fails,
        timeout,
        hold,
        port: Some(port),
    });
    let idle = proptest::array::uniform5(1..=604_800_u32).prop_map(|[tcp, half_open, closing, udp, echo]| Idle {
        tcp,
        half_open,
        closing,
        udp,
        echo,
    });
    (down, all, 0..=100u8, 0..=3600u32, idle, prop::option::of(passive), any::<[bool; 2]>()).prop_map(
        |(on_backend_down, all_down, panic_threshold, slow_start, idle, passive, [asymmetric, adopt])| Policy {
            on_backend_down,
            all_down,
            panic_threshold,
            slow_start,
            idle,
            passive,
            asymmetric,
            adopt,
        },
    )
}

fn discover() -> impl Values<Value = Discover> {
    let network = (0x0a00_0000..0x0aff_ffff_u32, 9..=30u8, any::<Option<u32>>());
    (network, prop::option::of("[a-z][a-z0-9.]{0,14}"), 1..=1024u16, 1000..=86_400_000u32).prop_map(
        |((bits, length, to), interface, limit, interval)| {
            let network = Network::around(IpAddr::V4(bits.into()), length).unwrap();
            let IpAddr::V4(first) = network.first() else { unreachable!() };
            let to = to.map(|to| IpAddr::V4((first.to_bits() | to & (u32::MAX >> length)).into()));
            let to = to.unwrap_or(network.last());
            Discover { places: vec![Place { network, to, interface }], limit, interval }
        },
    )
}

/// A service of one VIP on 192.0.2.x with everything in it.
fn service() -> impl Values<Value = Service> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let backends = || (hosts4(1), vec((1..=256u16, any::<bool>()), 20));
    (ports(), "[A-Za-z0-9._-]{1,64}", any::<u8>(), protocol)
        .prop_flat_map(move |(ports, name, vip, protocol)| {
            (Just((ports.clone(), name, vip, protocol)), policy(&ports), prop::option::of(check()))
        })
        .prop_flat_map(move |(start, policy, check)| {
            let discover = if check.is_some() { prop::option::of(discover()).boxed() } else { Just(None).boxed() };
            (Just((start, policy, check)), backends(), strategy(), affinity(), discover, other_ports())
        })
        .prop_map(
            |(
                ((ports, name, vip, protocol), mut policy, check),
                (hosts, shares),
                strategy,
                affinity,
                discover,
                (port, ports_of),
            )| {
                policy.passive = policy.passive.filter(|_| protocol == Protocol::Tcp);
                let backend = |(address, (weight, backup))| Backend { address, port: None, weight, backup };
                let mut backends: Vec<Backend> = hosts.into_iter().zip(shares).map(backend).collect();
                backends[0].backup = false;
                let vips = vec![IpAddr::from([192, 0, 2, vip])];
                // Half of them, by chance.
                let seen = policy.passive.is_some() || policy.asymmetric;
                let mode = if vip % 2 == 1 && !seen { Mode::Dsr } else { Mode::Nat };
                policy.adopt &= mode == Mode::Nat && protocol != Protocol::Any && !ports.is_empty();
                let changes = mode == Mode::Nat && protocol != Protocol::Any;
                let port = port.filter(|_| changes && discover.is_some());
                for (backend, own) in backends.iter_mut().zip(ports_of).filter(|_| changes) {
                    backend.port = own.or(port);
                }
                let checks_own_ports = false;
                Service {
                    name,
                    vips,
                    protocol,
                    ports,
                    port,
                    mode,
                    strategy,
                    affinity,
                    policy,
                    check,
                    checks_own_ports,
                    discover,
                    backends,
                }
            },
        )
}

/// The port of a service's backends, and each one's own.
fn other_ports() -> impl Values<Value = (Option<u16>, Vec<Option<u16>>)> {
    (prop::option::of(1..=u16::MAX), vec(prop::option::of(1..=u16::MAX), 20))
}

fn plans() -> impl Values<Value = Plan> {
    let cores = prop::option::of((0..=99u16, 0..=99u16).prop_map(|(low, more)| (low, low + more)));
    let numbers = (any::<u8>(), 1..=10_485_760u32, 1024..=67_108_864u32, 1024..=67_108_864u32, 1..=604_800u32);
    let servers = btree_set((0xc633_6401..0xc633_64ff_u32).prop_map(|bits| IpAddr::V4(bits.into())), 0..9);
    let unserved = prop_oneof![Just(Unserved::Pass), Just(Unserved::Drop)];
    ("[a-z]{1,32}", cores, numbers, unserved, servers, vec(service(), 1..5)).prop_map(
        |(user, cores, (queue_base, queue_len, flows, clients, drain), unserved, nameservers, mut services)| {
            let (mut names, mut vips) = (BTreeSet::new(), BTreeSet::new());
            services.retain(|service| names.insert(service.name.clone()) && vips.insert(service.vips[0]));
            let nameservers = nameservers.into_iter().collect();
            let (user, queue_base) = (if user == "root" { "nobody".into() } else { user }, queue_base.into());
            let other_sctp = |s: &Service| s.protocol == Protocol::Sctp && s.backends.iter().any(|b| b.port.is_some());
            let (defragment, linger) = (drain % 2 == 0 || services.iter().any(other_sctp), drain % 3 != 0);
            let translates = services.iter().any(|service| service.mode == Mode::Nat);
            let way = |bit: u32| if !translates && flows >> bit & 1 == 1 { OnFailure::Pass } else { OnFailure::Drop };
            let on_failure = Failures { no_worker: way(0), queue_full: way(1), parse_error: way(2) };
            Plan {
                user,
                cores,
                queue_base,
                queue_len,
                flows,
                clients,
                quota: Quota {
                    prefix4: queue_len.to_be_bytes()[3] % 32 + 1,
                    prefix6: flows.to_be_bytes()[3] % 128 + 1,
                    percent: clients.to_be_bytes()[3] % 100 + 1,
                },
                unserved,
                on_failure,
                nameservers,
                services,
                drain,
                stop_hold: drain % 3601,
                defragment,
                linger,
                fast: if clients % 2 == 0 { Fast::Auto } else { Fast::Off },
                host: if flows % 2 == 0 { HostPolicy::Tell } else { HostPolicy::Set },
                log_level: LogLevel::ALL[flows as usize % LogLevel::ALL.len()],
                metrics: match clients % 3 {
                    0 => None,
                    1 => Some(MetricsAddress::Tcp(([127, 0, 0, 1], 9273).into())),
                    _ => Some(MetricsAddress::Unix("/run/loaded/metrics.sock".into())),
                },
                monitor_group: (flows % 2 == 0).then(|| "adm".to_owned()),
                notify: if clients % 5 == 0 { vec!["/bin/tell".to_owned(), "it \"all\"".to_owned()] } else { vec![] },
                notify_user: (flows % 3 == 0).then(|| "nobody".to_owned()),
            }
        },
    )
}

fn write_plan(plan: &Plan) -> String {
    let Plan { user, cores, queue_base, queue_len, flows, clients, quota, unserved, .. } = plan;
    let Plan {
        nameservers,
        services,
        drain,
        stop_hold,
        defragment,
        linger,
        fast,
        host,
        log_level,
        on_failure,
        metrics,
        monitor_group,
        notify,
        notify_user,
        ..
    } = plan;
    let Quota { prefix4, prefix6, percent } = quota;
    let cores = cores.map_or(String::new(), |(low, high)| format!("cores = \"{low}-{high}\"\n"));
    let servers: Vec<String> = nameservers.iter().map(|server| format!("\"{server}\"")).collect();
    let servers = match servers.as_slice() {
        [] => String::new(),
        servers => format!("nameservers = [{}]\n", servers.join(",")),
    };
    let metrics = metrics.as_ref().map_or(String::new(), |address| format!("metrics = \"{address}\"\n"));
    let group = monitor_group.as_ref().map_or(String::new(), |group| format!("monitor_group = {group:?}\n"));
    let notify = if notify.is_empty() { String::new() } else { format!("notify = {notify:?}\n") };
    let notify_user = notify_user.as_ref().map_or(String::new(), |user| format!("notify_user = {user:?}\n"));
    let group = format!("{group}{notify}{notify_user}");
    let top = format!(
        "user = \"{user}\"\n{cores}queue_base = {queue_base}\nqueue_len = {queue_len}\nflows = {flows}\n\
         clients = {clients}\nquota = {{ prefix4 = {prefix4}, prefix6 = {prefix6}, percent = {percent} }}\n\
         unserved = \"{unserved}\"\n{servers}drain = \"{drain}s\"\nstop_hold = \"{stop_hold}s\"\ndefragment = {defragment}\nlinger = {linger}\nfast = \"{fast}\"\nhost = \"{host}\"\nlog_level = \"{log_level}\"\n{metrics}{group}"
    );
    let Failures { no_worker, queue_full, parse_error } = on_failure;
    let failures = format!(
        "[on_failure]\nno_worker = \"{no_worker}\"\nqueue_full = \"{queue_full}\"\nparse_error = \"{parse_error}\"\n"
    );
    top + &failures + &services.iter().map(write_service).collect::<String>()
}

fn write_service(service: &Service) -> String {
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
    if let Some(port) = service.port {
        writeln!(text, "port = {port}").unwrap();
    }
    match service.strategy {
        Strategy::Maglev { seed } => writeln!(text, "strategy = \"maglev\"\nseed = {seed}").unwrap(),
        other => writeln!(text, "strategy = \"{other}\"").unwrap(),
    }
    if service.mode == Mode::Dsr {
        writeln!(text, "mode = \"dsr\"").unwrap();
    }
    match service.affinity {
        None => writeln!(text, "affinity = \"none\"").unwrap(),
        Some(Affinity { prefix4, prefix6, timeout }) => writeln!(
            text,
            "affinity = {{ by = \"client\", prefix4 = {prefix4}, prefix6 = {prefix6}, timeout = \"{timeout}s\" }}"
        )
        .unwrap(),
    }
    text += &write_policy(service.policy);
    if let Some(check) = &service.check {
        text += &write_check(check);
    }
    if let Some(Discover { places, limit, interval }) = &service.discover {
        let Place { network, to, interface } = &places[0];
        let interface = interface.as_ref().map_or(String::new(), |name| format!(", interface = \"{name}\""));
        writeln!(
            text,
            "discover = {{ network = \"{network}\", to4 = \"{to}\", limit = {limit}, interval = \"{interval}ms\"{interface} }}"
        )
        .unwrap();
    }
    for Backend { address, port, weight, backup } in &service.backends {
        writeln!(text, "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\nbackup = {backup}").unwrap();
        if let Some(port) = port.filter(|port| Some(*port) != service.port) {
            writeln!(text, "port = {port}").unwrap();
        }
    }
    text
}

fn write_policy(policy: Policy) -> String {
    let Policy { on_backend_down, all_down, panic_threshold, slow_start, idle, passive, asymmetric, adopt } = policy;
    let Idle { tcp, half_open, closing, udp, echo } = idle;
    let passive = passive.map_or("false".to_owned(), |Passive { fails, timeout, hold, port }| {
        let port = port.map_or(String::new(), |port| format!(", port = {port}"));
        format!("{{ fails = {fails}, timeout = \"{timeout}ms\", hold = \"{hold}s\"{port} }}")
    });
    format!(
        "on_backend_down = \"{on_backend_down}\"\nall_down = \"{all_down}\"\npanic_threshold = {panic_threshold}\n\
         slow_start = \"{slow_start}s\"\npassive = {passive}\nasymmetric = {asymmetric}\nadopt = {adopt}\n\
         idle = {{ tcp = \"{tcp}s\", half_open = \"{half_open}s\", closing = \"{closing}s\", udp = \"{udp}s\", echo = \"{echo}s\" }}\n"
    )
}

fn write_check(check: &Check) -> String {
    let bytes = |bytes: &[u8]| if bytes.is_empty() { "\"\"".to_owned() } else { format!("{bytes:?}") };
    let Check { kind, interval, interval_down, timeout, jitter, rise, fall } = check;
    let own = match kind {
        CheckKind::Icmp => "\"icmp\"".to_owned(),
        CheckKind::Tcp { port } => format!("\"tcp\", port = {port}"),
        CheckKind::IcmpTcp { port } => format!("\"icmp+tcp\", port = {port}"),
        CheckKind::Http { port, method, path, host, status: (low, high), via } => format!(
            "\"http\", port = {port}, method = \"{method}\", path = \"{}\", host = \"{host}\", status = \"{low}-{high}\"{}",
            path.replace('\\', "\\\\").replace('"', "\\\""),
            via.map(|via| format!(", via = \"{via}\"")).unwrap_or_default()
        ),
        CheckKind::Udp { port, send, expect } => {
            format!("\"udp\", port = {port}, send = {}, expect = {}", bytes(send), bytes(expect))
        }
        CheckKind::Dns { port, name } => format!("\"dns\", port = {port}, name = \"{name}\""),
    };
    format!(
        "check = {{ kind = {own}, interval = \"{interval}ms\", interval_down = \"{interval_down}ms\", \
         timeout = \"{timeout}ms\", jitter = {jitter}, rise = {rise}, fall = {fall} }}\n"
    )
}

/// The plan without what order and restarts make of it.
fn settled(plan: &Plan) -> Vec<Service> {
    let mut services = plan.services.clone();
    services.sort_by(|one, two| one.name.cmp(&two.name));
    services
}

/// What is shipped, in both formats.
#[test]
fn a_shipped_configuration_that_is_written_makes_the_same_plan() {
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    for names in [&["loaded.toml"][..], &["loaded.config"], &["loaded.config6"], &["loaded.config", "loaded.config6"]] {
        let files: Vec<_> = names.iter().map(|name| scripts.join(name)).collect();
        for failover in [false, true] {
            let plan = load(&files, &Overrides { failover, ..Overrides::default() }).unwrap().plan;
            let text = written(&plan);
            assert_eq!(parse(&[Source::new("f.toml", &*text)], &Overrides::default()).unwrap().plan, plan, "{text}");
        }
    }
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
        let addresses: Vec<IpAddr> = plan.services[0].backends.iter().map(|backend| backend.address).collect();
        prop_assert_eq!(addresses, servers4.chain(servers6).copied().collect::<Vec<_>>());
        prop_assert_eq!((plan.cores, plan.queue_len), (Some((first, first + more)), queue_len));
    }

    #[test]
    fn toml_reads_what_was_written(plan in plans()) {
        let text = write_plan(&plan);
        let read = parse(&[Source::new("f.toml", &*text)], &Overrides::default()).unwrap().plan;
        assert_invariants(&read);
        prop_assert_eq!(&read, &plan);
    }

    #[test]
    fn a_plan_that_is_written_makes_the_same_plan(plan in plans()) {
        let text = written(&plan);
        let read = parse(&[Source::new("f.toml", &*text)], &Overrides::default());
        prop_assert_eq!(read.map(|read| read.plan).map_err(|error| format!("{error}\n{text}")), Ok(plan));
    }

    #[test]
    fn a_diff_is_empty_only_between_equal_plans(one in plans(), two in plans(), mixed in any::<u8>()) {
        prop_assert_eq!(diff(&one, &one), []);
        prop_assert_eq!(immutable_change(&one, &one), None);
        // Services that differ in one thing: the other plan's, under the first one's name.
        let mut other = one.clone();
        let (target, source) = (&mut other.services[0], &two.services[0]);
        match mixed % 10 {
            0 => target.vips.clone_from(&source.vips),
            1 => target.ports.clone_from(&source.ports),
            2 => target.strategy = source.strategy,
            3 => target.affinity = source.affinity,
            4 => target.policy = source.policy,
            5 => target.check.clone_from(&source.check),
            6 => target.discover.clone_from(&source.discover),
            7 => target.backends.clone_from(&source.backends),
            8 => {
                (target.mode, target.policy.passive) = (source.mode, source.policy.passive);
                target.policy.asymmetric = source.policy.asymmetric;
                target.policy.adopt = source.policy.adopt;
            }
            _ => target.protocol = source.protocol,
        }
        prop_assert_eq!(diff(&one, &other).is_empty(), settled(&one) == settled(&other));
        let same = settled(&one) == settled(&two) && one.drain == two.drain && one.stop_hold == two.stop_hold && one.nameservers == two.nameservers;
        prop_assert_eq!(diff(&one, &two).is_empty(), same);
    }
}
