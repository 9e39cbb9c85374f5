//! The program finds the worker that the rules would send a client's packets to.

use crate::generated::Random;
use crate::is_root;
use crate::network::network;
use crate::packets::{ACK, tcp};
use crate::world::{BACKENDS, CAPACITY, HASH_KEY, REDIRECT, VIPS, index_of, keep_all, load, now, try_with};
use loaded_fastpath::load::{Steering, WorkerMaps};
use loaded_ipc::Idle;
use loaded_netfilter::{HashKeys, Steering as Rules};
use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region, TableSpec};
use loaded_worker::setup::flow_timeouts;
use loaded_worker::wire::from_ip;

const WORKERS: u16 = 5;

#[test]
fn each_clients_flows_are_looked_for_where_the_rules_send_its_packets() {
    if !is_root() {
        return;
    }
    let [outside, inside] = network();
    for (prefix4, prefix6) in [(32, 128), (24, 64), (9, 33)] {
        let keys = HashKeys::new([0x1234_5677, 0x89ab_cdef, 0x0f1e_2d3c, 0x4b5a_6978, 0x1357_9bdf, 0x2468_ace1]);
        let rules = Rules::with_prefixes(prefix4, prefix6, keys);
        let (mask4, mask6, keys) = rules.numbers();
        let spec = TableSpec::new(CAPACITY, HASH_KEY);
        let maps: Vec<_> =
            (0..WORKERS).map(|_| WorkerMaps::new(FlowTable::bytes_for(CAPACITY), 4096).expect("maps")).collect();
        let workers: Vec<_> = maps.iter().map(|maps| (maps, spec)).collect();
        let loaded = load(&workers, &Steering { mask4, mask6, keys }, inside);
        let _keeping: Vec<_> = maps.iter().map(keep_all).collect();
        let region = |maps: &WorkerMaps| Region::map_array(&maps.table, FlowTable::bytes_for(CAPACITY)).expect("map");
        maps.iter().for_each(|maps| FlowTable::format(&region(maps), spec).expect("format"));
        let timeouts = flow_timeouts(&Idle::STANDARD);
        let mut tables: Vec<_> =
            maps.iter().map(|maps| FlowTable::open(region(maps), spec, timeouts).expect("open")).collect();
        let mut random = Random::Seeded(7);
        let mut met = [0; WORKERS as usize];
        for n in 0..200_u16 {
            let side = usize::from(n % 2);
            let client = match side {
                0 => std::net::Ipv4Addr::from((0x1000_0000 + random.below(0x3000_0000)) as u32).to_string(),
                _ => std::net::Ipv6Addr::from(0x2001 << 112 | u128::from(random.next()) << 72 | u128::from(n))
                    .to_string(),
            };
            let worker = usize::from(rules.worker_of(client.parse().expect("address"), WORKERS));
            met[worker] += 1;
            let address = from_ip(client.parse().expect("address"));
            let key = FlowKey { protocol: 6, client: address, client_port: 5000, service_port: 80 };
            let (vip, backend) = (u16::try_from(side).expect("few") * 3, index_of(side * 3));
            let table = &mut tables[worker];
            let flow = Flow { vip, backend, vip_port: 80, state: FlowState::Established };
            table.insert(&table.prepare(&key), &key, flow, now().seconds).expect("room");
            let request = tcp((&client, 5000), (VIPS[side], 80), ACK);
            assert_eq!(try_with(&loaded, &request, outside, 1).0.0, REDIRECT, "{client} /{prefix4} /{prefix6}");
            let reply = tcp((BACKENDS[side * 3], 80), (&client, 5000), ACK);
            assert_eq!(try_with(&loaded, &reply, inside, 1).0.0, REDIRECT, "{client} /{prefix4} /{prefix6}");
        }
        assert!(met.iter().all(|count| *count > 5), "{met:?}");
    }
}
