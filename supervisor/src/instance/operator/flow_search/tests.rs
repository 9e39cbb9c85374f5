//! Searches for flows in a table.

use super::*;
use loaded_config::{Overrides, Source, parse};
use loaded_table::{FlowTable, Region, TableSpec, Timeouts, shm};
use std::os::fd::OwnedFd;

const SPEC: TableSpec = TableSpec::new(8192, [7; 16]);
const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

fn roster() -> Roster {
    let service = |name: &str, port: u16| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = [\"192.0.2.100\", \"2001:db8::1\"]\nprotocol = \"tcp\"\nports = [{port}]\n\
             [[service.backend]]\naddress = \"198.51.100.11\"\nport = 8080\n[[service.backend]]\naddress = \"2001:db8:2::11\"\n"
        )
    };
    let text = service("web", 80) + &service("mail", 25);
    let plan = parse(&[Source::new("a.toml", text)], &Overrides::default()).unwrap().plan;
    Roster::empty().next(&plan, &[], 0, Instant::now()).unwrap()
}

/// Flow `n`: of backend `n % 4`, half open if `n` is divisible by 10.
fn table(flows: u16) -> OwnedFd {
    let fd = shm::create("flows", FlowTable::bytes_for(SPEC.capacity)).unwrap();
    let region = Region::map(&fd).unwrap();
    FlowTable::format(&region, SPEC).unwrap();
    let mut table = FlowTable::open(region, SPEC, TIMEOUTS).unwrap();
    for n in 0..flows {
        let client = if n % 2 == 0 { "::ffff:203.0.113.0" } else { "2001:db8:9::" }.parse::<Ipv6Addr>().unwrap();
        let client = Ipv6Addr::from_bits(client.to_bits() + u128::from(n / 2 % 200)).octets();
        let key = FlowKey { protocol: 6, client, client_port: n, service_port: 80 };
        let state = if n % 10 == 0 { FlowState::HalfOpen } else { FlowState::Established };
        let flow = Flow { vip: n % 2, vip_port: 80, backend: n % 4, state };
        let slot = table.insert(&table.prepare(&key), &key, flow, 60).unwrap().slot;
        table.refresh(slot, 100);
    }
    fd
}

/// The answer, over two workers' tables.
fn search(query: FlowQuery) -> FlowList {
    let (roster, tables) = (roster(), [table(4000), table(1000)]);
    let mut search = FlowSearch::new(1, query, &roster, Instant::now()).unwrap();
    while let Some(table) = tables.get(search.worker) {
        if search.wants_table() {
            search.give(FlowReader::open(table, SPEC).unwrap());
        }
        let by_kernel = |_, known: KnownFlow| known.idle == 75 && known.state == FlowState::Established as u8;
        search.go_on(&roster, u16::try_from(search.worker).unwrap(), 175, &by_kernel);
    }
    search.into_list()
}

const ANY: FlowQuery = FlowQuery { client: None, backend: None, port: None, service: None, state: None, limit: 10 };

#[test]
fn every_flow_of_all_workers_is_found() {
    let list = search(FlowQuery { limit: MAX_FLOWS, ..ANY });
    assert_eq!((list.total, list.matched, list.flows.len()), (5000, 5000, 5000));
    assert_eq!(list.states, [("established".to_owned(), 4500), ("half_open".to_owned(), 500)].into());
    assert_eq!(list.flows.iter().filter(|flow| flow.worker == 1).count(), 1000);
    let one = list.flows.iter().find(|flow| flow.client_port == 2).unwrap();
    assert_eq!((one.client, one.vip), ("203.0.113.1".parse().unwrap(), "192.0.2.100".parse().unwrap()));
    assert_eq!((one.service.as_str(), one.backend, one.port), ("mail", "198.51.100.11".parse().unwrap(), Some(8080)));
    assert_eq!((one.state.as_str(), one.age, one.idle, one.vip_port), ("established", Some(115), 75, 80));
    assert!(list.flows.iter().all(|flow| (flow.path == "kernel") == (flow.state == "established")));
    assert!(list.flows.iter().all(|flow| flow.client.is_ipv4() == flow.backend.is_ipv4()));
}

#[test]
fn what_is_asked_for_is_found_and_counted_beyond_the_limit() {
    let count = |query: FlowQuery| {
        let list = search(query);
        assert_eq!(list.total, 5000);
        (list.matched, list.flows.len())
    };
    assert_eq!(count(FlowQuery { state: Some("half_open".to_owned()), ..ANY }), (500, 10));
    assert_eq!(count(FlowQuery { service: Some("web".to_owned()), limit: 0, ..ANY }), (2500, 0));
    assert_eq!(count(FlowQuery { backend: Some("2001:db8:2::11".parse().unwrap()), ..ANY }).0, 2500);
    assert_eq!(count(FlowQuery { port: Some(8080), ..ANY }).0, 2500);
    let client = |text: &str, length| Some((text.parse().unwrap(), length));
    assert_eq!(count(FlowQuery { client: client("203.0.113.9", 24), ..ANY }).0, 2500);
    assert_eq!(count(FlowQuery { client: client("203.0.113.9", 32), ..ANY }).0, 13);
    assert_eq!(count(FlowQuery { client: client("2001:db8:9::1", 128), limit: 20, ..ANY }), (13, 13));
    assert_eq!(count(FlowQuery { client: client("::", 0), ..ANY }).0, 2500);
}

#[test]
fn a_query_for_what_is_not_there_is_refused() {
    let refused = |query| FlowSearch::new(1, query, &roster(), Instant::now()).unwrap_err();
    assert!(refused(FlowQuery { service: Some("wep".to_owned()), ..ANY }).starts_with("there is no service \"wep\""));
    assert!(refused(FlowQuery { backend: Some("198.51.100.9".parse().unwrap()), ..ANY }).contains("198.51.100.9"));
    assert!(refused(FlowQuery { state: Some("opne".to_owned()), ..ANY }).contains("\"opne\""));
    assert!(refused(FlowQuery { client: Some(("203.0.113.9".parse().unwrap(), 33)), ..ANY }).contains("/33"));
    assert!(refused(FlowQuery { limit: MAX_FLOWS + 1, ..ANY }).contains("10001"));
}

#[test]
fn what_is_to_end_is_named_and_never_everything() {
    let roster = roster();
    let mail = meant(FlowQuery { service: Some("mail".to_owned()), ..ANY }, &roster).unwrap();
    assert_eq!(mail.service, roster.services().map(|(index, _)| index).nth(1));
    assert!(meant(ANY, &roster).unwrap_err().contains("--client"));
    assert!(meant(FlowQuery { service: Some("wep".to_owned()), ..ANY }, &roster).is_err());
    assert!(meant(FlowQuery { client: Some(("192.0.2.1".parse().unwrap(), 33)), ..ANY }, &roster).is_err());
}

/// A hostile worker writes what it likes: numbers that the roster does not have are no flows.
#[test]
fn flows_of_nothing_are_not_shown() {
    let fd = table(8);
    let region = Region::map(&fd).unwrap();
    let mut table = FlowTable::open(region, SPEC, TIMEOUTS).unwrap();
    for (n, vip, backend) in [(50, 9, 0), (51, 0, 4), (52, u16::MAX, u16::MAX)] {
        let key = FlowKey { protocol: 6, client: [1; 16], client_port: n, service_port: 80 };
        let flow = Flow { vip, vip_port: 80, backend, state: FlowState::Established };
        table.insert(&table.prepare(&key), &key, flow, 100).unwrap();
    }
    let mut search = FlowSearch::new(1, ANY, &roster(), Instant::now()).unwrap();
    search.give(FlowReader::open(&fd, SPEC).unwrap());
    while search.worker == 0 {
        search.go_on(&roster(), 0, 100, &|_, _| false);
    }
    assert_eq!(search.into_list().total, 8);
}
