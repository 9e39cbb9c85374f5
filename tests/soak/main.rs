//! The soak: everything that can happen to an instance, at random and again and again, under traffic of every kind. Then
//! it must be like one that has just started, and clients of healthy backends must have noticed nothing.
//!
//! `scripts/soak` runs it and says how long, by which seed and where the results go: `SOAK_SECONDS`, `SOAK_SEED`,
//! `SOAK_OUT`. `LAB` names the lab, `LOADED_BIN` the program.
//!
//! The services `steady` (TCP 80) and `echo` (UDP 7007) have b1 to b3, which live through it all. `mortal` (TCP 81) has
//! b4 to b6, which die and come back: its clients' errors are only counted.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../e2e/rig/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod rig;

mod acts;
mod control;
mod instance;
mod report;
mod traffic;
mod watch;

use acts::Stage;
use instance::Instance;
use report::{Journal, Report, picture, trend};
use rig::lab::{Lab, binary, bounded, eventually, said, setting};
use rig::machine::without_room;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use traffic::{Counts, Traffic};
use watch::rest::{Files, alive, no_namespace, rules, same};
use watch::{ROLES, Sampler, Samples, accounts};

/// Time from the start of traffic to the first act.
const WARM: Duration = Duration::from_secs(10);
const BACKENDS: usize = 6;
/// Time from a reload until removed backends and services are gone: `drain`, then `FAREWELL` (src/roster/src/lib.rs),
/// then a margin.
const DEPARTURE: Duration = Duration::from_secs(10 + 20 + 5);

/// Options of `scripts/soak`.
struct Settings {
    length: Duration,
    seed: u64,
    out: PathBuf,
    lab: String,
}

impl Settings {
    fn read() -> Self {
        let text = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/soak"));
        let out = PathBuf::from(text("SOAK_OUT"));
        assert!(fs::read_dir(&out).unwrap().next().is_none(), "{} is not empty", out.display());
        Self {
            length: Duration::from_secs(setting("SOAK_SECONDS", 3600)),
            seed: setting("SOAK_SEED", 1),
            out,
            lab: text("LAB"),
        }
    }
}

/// Tells threads to end when dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "takes an hour: scripts/soak runs it"]
fn soak() {
    let settings = Settings::read();
    let Some(lab) = Lab::named(&settings.lab, BACKENDS) else { return };
    instance::prepare(&lab);
    traffic::prepare(&lab);
    // The first look makes tables.
    rules(&lab);
    let before = rules(&lab);
    let version = said(&bounded(&[binary().to_str().unwrap(), "--version"]).output().unwrap()).out;
    let (version, seconds, out) = (version.trim(), settings.length.as_secs(), settings.out.display());
    println!("{version}, {seconds} s, seed {}, results in {out}", settings.seed);
    let journal = Journal::begin(&settings.out);
    let mut report = Report::default();
    let mut instance = Instance::start(&lab, &settings.out);
    let (samples, warm, over) = live(&settings, &lab, &journal, &mut instance, &mut report);
    end(&lab, &mut instance, &samples, &before, &mut report);
    println!("memory and files, from the end of the first {} s to the last act", WARM.as_secs());
    trend::judge(&samples, warm, over, &mut report);
    let picture = settings.out.join("soak.svg");
    fs::write(&picture, picture::draw(&samples, &journal.acts())).unwrap();
    let names = lab.namespace("");
    drop(instance);
    drop(lab);
    report.check("no namespace of the lab is left", no_namespace(&names));
    println!("acts: {}\npicture: {}", journal.counts(), picture.display());
    let (seed, failed) = (settings.seed, report.failed());
    assert!(failed.is_empty(), "seed {seed}, what was seen is in {out}; what failed:\n{}", failed.join("\n"));
    println!("all ok");
}

/// Runs traffic and acts, then judges what clients have seen and accounts for every packet. Returns the samples, and the two
/// times between which the instance must not grow.
fn live(
    settings: &Settings,
    lab: &Lab,
    journal: &Journal,
    instance: &mut Instance<'_>,
    report: &mut Report,
) -> (Samples, f64, f64) {
    let no_room_before = without_room();
    let counts = Counts::default();
    let (clients_over, watch_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (counts, watch_over) = (&counts, &watch_over);
        let (end_of_clients, end_of_watch) = (Stop(&clients_over), Stop(watch_over));
        let sampler = Sampler { lab, journal, counts, out: &settings.out };
        let watch = scope.spawn(move || sampler.look(settings.length, watch_over));
        let end = Instant::now() + settings.length;
        let traffic = Traffic::begin(scope, lab, counts, &clients_over);
        sleep(WARM);
        let warm = journal.now();
        let deaths = Stage::new(scope, lab, journal).perform(settings.seed, end, instance, report);
        println!("acts are over; every backend comes back, the first configuration, then the clients end");
        let recovered = recover(instance, report);
        let over = journal.now();
        drop(end_of_clients);
        traffic.end(|| without_room() - no_room_before, report);
        accounts::judge(lab, instance, deaths, report);
        println!("processes");
        report.verdict(settles(instance, recovered), "what left the configuration is gone");
        let serves = instance.control.comes_to(Duration::from_secs(40), control::Status::is_complete);
        report.verdict(serves, "one supervisor, two workers, one prober serve");
        drop(end_of_watch);
        (watch.join().unwrap(), warm, over)
    })
}

/// Reloads the first configuration and waits until every backend is up. Returns the time of the reload.
fn recover(instance: &Instance<'_>, report: &mut Report) -> Instant {
    instance.has_two_workers();
    let asked = Instant::now();
    instance.reload(0);
    let text = "every backend is up and enabled";
    let recovers = instance.control.comes_to(Duration::from_secs(60), control::Status::is_recovered);
    report.expect(recovers, text, || instance.control.ask(&["status"]).out);
    sleep(Duration::from_secs(2));
    asked
}

/// Waits until everything removed is gone: until then it keeps its rules, and a last change of workers is to come.
fn settles(instance: &Instance<'_>, since: Instant) -> bool {
    sleep((since + DEPARTURE).saturating_duration_since(Instant::now()));
    let generation = || instance.control.status().map(|status| status.generation());
    let is_at_rest = || {
        let before = generation();
        sleep(Duration::from_secs(3));
        before.is_some() && before == generation() && instance.control.status().is_some_and(|s| s.has_no_departure())
    };
    eventually(Duration::from_secs(40), is_at_rest)
}

/// Rules, processes and open files must be those of an instance that has just started, and none must outlive it.
fn end(lab: &Lab, instance: &mut Instance<'_>, samples: &Samples, before: &str, report: &mut Report) {
    let ours = alive(samples);
    report.expect(ours.len() == 4, "no other process of it is left", || format!("{ours:?}"));
    let (soaked, files) = (rules(lab), files(instance));
    report.check("it ends on TERM", instance.stop());
    let all_end = eventually(Duration::from_secs(5), || alive(samples).is_empty());
    report.expect(all_end, "all of its processes end with it", || format!("{:?}", alive(samples)));
    report.check("the rules are those from before its start", same(before, &rules(lab)));
    instance.start_again();
    let serves = instance.control.comes_to(Duration::from_secs(20), control::Status::is_complete);
    report.verdict(serves, "a fresh instance serves");
    report.check("its rules were those of the fresh instance", same(&rules(lab), &soaked));
    for ((role, soaked), fresh) in ROLES.iter().zip(files).zip(self::files(instance)) {
        let counts = |files: &[Files]| files.iter().map(|files| files.count).collect::<Vec<_>>();
        let (before, after) = (counts(&soaked), counts(&fresh));
        let text = format!("open files of {role}: {before:?}, of a fresh one {after:?}");
        report.expect(before == after && !before.is_empty(), &text, || format!("{soaked:?}, {fresh:?}"));
    }
    report.check("the fresh instance ends on TERM", instance.stop());
}

/// Open files of the serving processes of each role, at rest.
fn files(instance: &Instance<'_>) -> [Vec<Files>; 3] {
    let pids = ROLES.map(|role| instance.control.serving(role));
    pids.map(|pids| Files::at_rest(&pids))
}
