//! Tables whose header a hostile worker has chosen: room for one entry, or a key that it knows, in a header that is sound.
//! Its successors work with the supervisor's capacity and key, through whatever comes after, and status and history tell.

use crate::rig::config::{FREE, STICKY, Service, change, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::{Loaded, lives, signal_to};
use crate::rig::net::{Family, backend_of, dial, get};
use loaded_table::{AffinityTable, FlowTable, Region, TableSpec, shm};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

const FLOWS: &str = "loaded-flows";
const CLIENTS: &str = "loaded-clients";
/// The bytes of a table's header.
const HEADER: usize = 128;
/// What its tables can hold by the configuration, and the key that it would like them to have.
const ENTRIES: usize = 2048;
const KEY: &[u8; 16] = b"known to one all";
const CONNECTIONS: u16 = 100;
const ALIVE: Duration = Duration::from_millis(1500);

fn text(keys: &str, drain: &str) -> String {
    let keys = format!("strategy = \"rr\"\n{keys}");
    format!(
        "cores = \"0-1\"\nflows = {ENTRIES}\nclients = {ENTRIES}\n{}",
        config(drain, &[Service { keys: &keys, ..Service::default() }])
    )
}

/// A sound header of a table for so many entries.
fn header(of: &str, entries: usize) -> [u8; HEADER] {
    let bytes = FlowTable::bytes_for(entries).max(AffinityTable::bytes_for(entries));
    let memory = shm::create("forged", bytes).unwrap();
    let region = Region::map(&memory).unwrap();
    let spec = TableSpec::new(entries, *KEY);
    match of {
        FLOWS => FlowTable::format(&region, spec).unwrap(),
        _ => AffinityTable::format(&region, spec).unwrap(),
    }
    let mut header = [0; HEADER];
    File::from(memory).read_exact_at(&mut header, 0).unwrap();
    header
}

/// Root can open tables in memfds; those of the kernel path are BPF arrays, which only who has their descriptor can write.
fn begin(lab: &Lab, text: &str) -> Loaded {
    Loaded::start(lab, &["-c", &lab.file("loaded.toml", text), "--fast", "off"].map(str::to_owned))
}

/// What a worker has of this memory.
fn memory(worker: u32, name: &str) -> PathBuf {
    let descriptors = fs::read_dir(format!("/proc/{worker}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let is = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with(&format!("/memfd:{name} ")))
    };
    descriptors.into_iter().find(is).unwrap_or_else(|| panic!("worker {worker} has no {name}"))
}

/// What a worker that was taken over can write, as root writes it; and its end.
fn forge(loaded: &Loaded, tables: &[&str], entries: usize) {
    let workers = loaded.workers();
    for worker in &workers {
        for name in tables {
            let memory = File::options().write(true).open(memory(*worker, name)).unwrap();
            memory.write_all_at(&header(name, entries), 0).unwrap();
        }
        signal_to(*worker, Signal::SIGKILL);
    }
    let followed = || loaded.workers().len() == workers.len() && loaded.workers().iter().all(|w| !workers.contains(w));
    assert!(eventually(Duration::from_secs(10), followed), "{}", loaded.log());
    std::thread::sleep(Duration::from_millis(500));
}

/// Asks on a connection that stays.
fn ask(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(ALIVE)).unwrap();
    let end = format!(" {}\n", stream.local_addr().unwrap().ip());
    let (mut text, mut part) = (Vec::new(), [0; 2048]);
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n").is_err() {
        return false;
    }
    while !text.ends_with(end.as_bytes()) {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return false,
            Ok(length) => text.extend(&part[..length]),
        }
    }
    true
}

/// Of a hundred connections, from as many clients as there are, those that live when all of them are open.
fn living(lab: &Lab, family: Family) -> usize {
    lab.within("client", || {
        let to = SocketAddr::new(family.vip(), 80);
        std::thread::scope(|scope| {
            let one = |n: u16| {
                let mut stream = dial(family.client(10 + n % 40), to).ok()?;
                ask(&mut stream).then_some(stream)
            };
            let threads: Vec<_> = (0..CONNECTIONS).map(|n| scope.spawn(move || one(n))).collect();
            let streams: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
            let threads: Vec<_> = streams.into_iter().map(|mut s| scope.spawn(move || ask(&mut s))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|lives| *lives).count()
        })
    })
}

/// Whether status and history tell of it.
fn told(loaded: &Loaded) -> [bool; 2] {
    [&["status"][..], &["history"]].map(|words| loaded.ask(words).out.to_lowercase().contains("damaged"))
}

#[track_caller]
fn is_told(loaded: &Loaded, told: [bool; 2]) {
    assert_eq!(told, [true; 2], "{}\n{}", loaded.ask(&["status"]).out, loaded.ask(&["history"]).out);
}

/// The supervisor is killed, and another one takes its workers over.
fn adopted(lab: &Lab, loaded: Loaded, text: &str) -> Loaded {
    let pid = loaded.pid();
    loaded.signal(Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(5), || !lives(pid)));
    drop(loaded);
    begin(lab, text)
}

#[test]
fn a_table_for_one_flow_is_no_successors_table() {
    let Some(lab) = Lab::up() else { return };
    let loaded = begin(&lab, &text(FREE, "60s"));
    let mut seen = Vec::new();
    let mut look = |after: &str| seen.push((after.to_owned(), Family::BOTH.map(|family| living(&lab, family))));
    look("before");
    forge(&loaded, &[FLOWS], 1);
    look("its end");
    let told = told(&loaded);
    change(&lab, &loaded, &text(FREE, "61s"));
    look("a reload");
    loaded.upgrade().unwrap();
    look("an upgrade");
    let loaded = adopted(&lab, loaded, &text(FREE, "61s"));
    look("an adoption");
    println!("of {CONNECTIONS} connections live: {seen:?}; status and history tell: {told:?}");
    assert!(seen.iter().all(|(_, living)| *living == [usize::from(CONNECTIONS); 2]), "{seen:?}");
    is_told(&loaded, told);
    loaded.stop();
}

/// Forty clients of each family stay with their backends: they are remembered.
#[test]
fn a_table_for_one_client_is_no_successors_table() {
    let Some(lab) = Lab::up() else { return };
    let loaded = begin(&lab, &text(STICKY, "60s"));
    forge(&loaded, &[CLIENTS], 1);
    let places = |family: Family| -> Vec<String> {
        let place = |n| get(family.client(n), family.vip(), 80).map(|answer| backend_of(&answer, family.client(n)));
        lab.within("client", || (10..50).map(|n| place(n).unwrap_or_else(|error| error.to_string())).collect())
    };
    let mut moved = Vec::new();
    for family in Family::BOTH {
        let first = places(family);
        let then: Vec<_> = (0..3).map(|_| places(family)).collect();
        moved.push((0..first.len()).filter(|n| then.iter().any(|places| places[*n] != first[*n])).count());
    }
    let told = told(&loaded);
    println!("of 40 clients have moved: {moved:?}; status and history tell: {told:?}");
    assert_eq!(moved, [0; 2]);
    is_told(&loaded, told);
    loaded.stop();
}

/// Who knows the key can aim what he sends at two buckets.
#[test]
fn a_key_that_a_worker_has_chosen_is_no_successors_key() {
    let Some(lab) = Lab::up() else { return };
    let loaded = begin(&lab, &text(STICKY, "60s"));
    forge(&loaded, &[FLOWS, CLIENTS], ENTRIES);
    let has = |worker: &u32, name: &str| {
        let mut header = [0; HEADER];
        File::open(memory(*worker, name)).unwrap().read_exact_at(&mut header, 0).unwrap();
        header.windows(KEY.len()).any(|bytes| bytes == KEY)
    };
    let keep = [FLOWS, CLIENTS].map(|name| loaded.workers().iter().filter(|worker| has(worker, name)).count());
    let told = told(&loaded);
    println!("of 2 workers keep the key of flows and clients: {keep:?}; status and history tell: {told:?}");
    assert_eq!((keep, told), ([0; 2], [true; 2]));
    loaded.stop();
}
