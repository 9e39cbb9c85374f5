//! `loaded replay` from outside, as a user without any right: real captures against what is known to be right, packets of
//! every shape, and files that are broken.
//!
//! ```text
//! cargo test --test replay                             target/release/loaded must be built; LOADED_BIN names another
//! LOADED_BLESS=1 cargo test --test replay golden       writes what is printed now as what is right: read the diff
//! LOADED_REPLAY_PACKETS=1000000 cargo test --test replay generated -- --nocapture
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod generate;

use generate::{Cast, Generator};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// Those of the account nobody.
const NOBODY: u32 = 65_534;

/// A directory that anybody may enter, with the program in it. Goes when it is dropped.
struct TestDir(PathBuf);

impl TestDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loaded-replay-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let dir = Self(path);
        fs::set_permissions(&dir.0, Permissions::from_mode(0o777)).unwrap();
        let program =
            std::env::var_os("LOADED_BIN").map_or_else(|| root().join("target/release/loaded"), PathBuf::from);
        assert!(program.is_file(), "{} is missing: cargo build --release, or set LOADED_BIN", program.display());
        // By a process of its own: a child that another test starts meanwhile would inherit our descriptor for writing, and the
        // program could not be executed (ETXTBSY).
        let copied = Command::new("install").args(["-m", "755"]).args([program, dir.path("loaded")]).status().unwrap();
        assert!(copied.success(), "install the program: {copied}");
        for config in ["loaded.config", "loaded.config6", "loaded.toml"] {
            dir.take(&root().join("scripts").join(config));
        }
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Copies a file to where anybody can read it.
    fn take(&self, file: &Path) -> PathBuf {
        let copy = self.path(file.file_name().unwrap().to_str().unwrap());
        fs::copy(file, &copy).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
        copy
    }

    /// `loaded replay` in the directory, by the lab's configuration, as nobody if this is root.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.path("loaded"));
        command.arg("replay").args(["-c", "loaded.config", "-c", "loaded.config6"]).args(words);
        command.current_dir(&self.0).stdin(Stdio::null()).env_clear();
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn replay(&self, words: &[&str]) -> Said {
        said(&self.command(words).output().unwrap())
    }

    /// A capture of raw IP packets, a millisecond apart.
    fn capture(&self, name: &str, packets: impl Iterator<Item = Vec<u8>>) {
        let mut file = BufWriter::new(File::create(self.path(name)).unwrap());
        file.write_all(&header(101)).unwrap();
        for (n, packet) in (0_u32..).zip(packets) {
            file.write_all(&record(n, &packet, packet.len())).unwrap();
        }
        file.flush().unwrap();
    }

    fn write(&self, name: &str, parts: &[&[u8]]) {
        fs::write(self.path(name), parts.concat()).unwrap();
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The header of a classic capture with microseconds.
fn header(link: u32) -> Vec<u8> {
    let words = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 262_144, link];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A record of the millisecond `n`.
fn record(n: u32, bytes: &[u8], original: usize) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).unwrap();
    let words = [1_700_000_000 + n / 1000, n % 1000 * 1000, length(bytes.len()), length(original)];
    [words.iter().flat_map(|word| word.to_le_bytes()).collect(), bytes.to_vec()].concat()
}

/// A block of a pcapng file, in either byte order: type, length, content padded to 32 bits, length.
fn block(big: bool, kind: u32, content: &[&[u8]]) -> Vec<u8> {
    let mut content = content.concat();
    content.resize(content.len().next_multiple_of(4), 0);
    let length = number(big, u32::try_from(content.len() + 12).unwrap());
    [&number(big, kind)[..], &length, &content, &length].concat()
}

fn number(big: bool, value: u32) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

/// The reasons of a summary with their counts.
fn reasons(summary: &str) -> Vec<(String, u64)> {
    let pair = |line: &str| line.trim().split_once(' ').map(|(count, name)| (name.to_owned(), count.parse().unwrap()));
    summary.lines().filter_map(pair).collect()
}

#[test]
fn golden_captures_are_decided_as_they_were_found_to_be_right() {
    let dir = TestDir::new("golden");
    let folder = root().join("tests/captures");
    let mut captures: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    captures.retain(|path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng"));
    assert!(captures.len() >= 5, "{captures:?}");
    for capture in captures {
        dir.take(&capture);
        let name = capture.file_name().unwrap().to_str().unwrap();
        let said = dir.replay(&[name]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{name}");
        let expected = capture.with_extension("expected");
        if std::env::var_os("LOADED_BLESS").is_some() {
            fs::write(&expected, &said.out).unwrap();
        }
        let right = fs::read_to_string(&expected).unwrap();
        for (n, (is, right)) in said.out.lines().zip(right.lines()).enumerate() {
            assert_eq!(is, right, "{name}, line {}", n + 1);
        }
        assert_eq!(said.out, right, "{name}");
    }
}

#[test]
fn generated_packets_of_every_shape_each_meet_one_end() {
    let packets: u64 = std::env::var("LOADED_REPLAY_PACKETS").map_or(100_000, |text| text.parse().unwrap());
    let dir = TestDir::new("generated");
    let seed = 20_261_124;
    dir.capture("all.pcap", Generator::new(seed, Cast::of_the_lab()).take(usize::try_from(packets).unwrap()));
    let begin = Instant::now();
    let mut child = dir.command(&["all.pcap", "--write", "out.pcap"]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut lines, mut summary) = (0, Vec::new());
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        match line.split_once(" +") {
            Some((number, _)) => {
                lines += 1;
                assert_eq!(number, lines.to_string());
            }
            None => summary.push(line),
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    println!("seed {seed}: {packets} packets in {:.1} s", begin.elapsed().as_secs_f64());
    println!("{}", summary.join("\n"));
    assert_eq!(lines, packets);
    assert_eq!(summary[..2], [String::new(), format!("{packets} packets")]);
    let reasons = reasons(&summary[2..].join("\n"));
    assert_eq!(reasons.iter().map(|(_, count)| count).sum::<u64>(), packets);
    // A generator that gets nowhere would prove nothing.
    for needed in [
        "forwarded",
        "forwarded_new",
        "returned",
        "error_forwarded",
        "error_returned",
        "passed_own",
        "passed_foreign",
        "dropped_malformed",
        "dropped_stray_error",
        "passed_neighbour",
        "not IP",
    ] {
        assert!(reasons.iter().any(|(name, count)| name == needed && *count > 0), "no {needed}");
    }
    assert!(!reasons.iter().any(|(name, _)| name == "dropped_undecided"));

    // What goes out is a capture again, of all that was not dropped.
    let again = dir.replay(&["out.pcap"]);
    let dropped: u64 =
        reasons.iter().filter(|(name, _)| name.starts_with("dropped") || name == "not IP").map(|r| r.1).sum();
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(again.out.contains(&format!("\n\n{} packets\n", packets - dropped)));
}

#[test]
fn a_capture_that_breaks_off_is_told_up_to_there() {
    let dir = TestDir::new("broken");
    let packets: Vec<_> = Generator::new(1, Cast::of_the_lab()).filter(|packet| packet.len() > 60).take(3).collect();
    let records: Vec<_> = (0..).zip(&packets).map(|(n, packet)| record(n, packet, packet.len())).collect();
    let whole = [header(101), records.concat()].concat();
    for missing in [1, 17, packets[2].len() + 15] {
        dir.write("cut.pcap", &[&whole[..whole.len() - missing]]);
        let said = dir.replay(&["cut.pcap"]);
        assert_eq!(said.code, Some(1));
        assert!(said.out.contains("\n\n2 packets\n"), "{}", said.out);
        let at = whole.len() - missing;
        let told = format!("loaded: error: cut.pcap: packet 3: the file ends in the middle of it, at byte {at}\n");
        assert_eq!(said.err, told);
    }
    let refused = |name: &str, text: &str| {
        let said = dir.replay(&[name]);
        assert_eq!(said.code, Some(1), "{name}");
        assert!(said.err.contains(text) && said.err.lines().count() == 1, "{name}: {}", said.err);
    };
    dir.write("empty.pcap", &[]);
    dir.write("short.pcap", &[&whole[..23]]);
    dir.write("text.pcap", &[b"this is a text, and a long one, but no capture"]);
    for name in ["empty.pcap", "short.pcap", "text.pcap"] {
        refused(name, "is not a capture");
    }
    refused("absent.pcap", "open absent.pcap: No such file");
    dir.write("radio.pcap", &[&header(105), &records[0]]);
    refused("radio.pcap", "radio.pcap: packet 1: link type 105 is not known");
    let huge = [1_700_000_000_u32, 0, u32::MAX, u32::MAX].iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    dir.write("huge.pcap", &[&header(101), &records[0], &huge, &[0; 100]]);
    refused("huge.pcap", "huge.pcap: packet 2: it says it is longer than 1 MiB");
    dir.write("none.pcap", &[&header(101)]);
    let said = dir.replay(&["none.pcap"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "\n0 packets\n"));
}

#[test]
fn what_is_read_is_never_overwritten() {
    let dir = TestDir::new("same");
    dir.capture("a.pcap", Generator::new(2, Cast::of_the_lab()).take(5));
    fs::set_permissions(dir.path("a.pcap"), Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::symlink("a.pcap", dir.path("link.pcap")).unwrap();
    let before = fs::read(dir.path("a.pcap")).unwrap();
    for name in ["a.pcap", "./a.pcap", "link.pcap"] {
        let said = dir.replay(&["a.pcap", "--write", name]);
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains("would overwrite the capture that is read"), "{}", said.err);
    }
    assert_eq!(fs::read(dir.path("a.pcap")).unwrap(), before);
}

#[test]
fn who_stops_reading_hears_no_complaint() {
    let dir = TestDir::new("pipe");
    dir.capture("a.pcap", Generator::new(3, Cast::of_the_lab()).take(20_000));
    let mut command = dir.command(&["a.pcap"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let said = said(&child.wait_with_output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn a_record_that_is_shorter_than_its_packet_is_cut() {
    let dir = TestDir::new("cut");
    let syn = [
        0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 100, 0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0,
        0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0, b'd', b'a', b't', b'a',
    ];
    // Without its last bytes, with what an Ethernet puts behind it, and without a part of that.
    let padded = [&syn[..], &[0; 6]].concat();
    let records = [record(0, &syn[..40], 44), record(1, &padded, 50), record(2, &syn, 46)].concat();
    dir.write("a.pcap", &[&header(101), &records]);
    let said = dir.replay(&["a.pcap", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lines: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["reason"].as_str()).collect::<Vec<_>>(),
        [Some("dropped_cut"), Some("forwarded_new"), Some("forwarded"), None,]
    );
    assert_eq!(lines[1]["flow"]["client"], "192.0.2.1");
    assert_eq!(lines[1]["flow"]["vip_port"], 80);
    assert_eq!((&lines[1]["flow"]["known"], &lines[2]["flow"]["known"]), (&false.into(), &true.into()));
    assert_eq!(lines[3]["packets"], 3);
}

#[test]
fn pcapng_is_read_in_all_its_parts() {
    let dir = TestDir::new("ng");
    let packet =
        Generator::new(4, Cast::of_the_lab()).find(|packet| packet.len() % 4 == 1 && packet[0] == 0x45).unwrap();
    let tagged = [&[0; 12][..], &[0x81, 0, 0, 7, 8, 0], &packet].concat();
    let section = |big: bool| {
        let n = |value| number(big, value);
        let half = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let length = |bytes: &[u8]| n(u32::try_from(bytes.len()).unwrap());
        // Nanoseconds: if_tsresol 9.
        let fine = [&half(9)[..], &half(1), &[9, 0, 0, 0], &half(0), &half(0)].concat();
        let stamp = (1_700_000_000_000_000_000_u64 + if big { 2_000_001_000 } else { 0 }).to_be_bytes();
        let halves = [0, 4].map(|at| n(u32::from_be_bytes(stamp[at..at + 4].try_into().unwrap())));
        [
            block(big, 0x0a0d_0d0a, &[&n(0x1a2b_3c4d), &half(1), &half(0), &[0xff; 8]]),
            block(big, 1, &[&half(1), &half(0), &n(0), &fine]),
            block(big, 1, &[&half(101), &half(0), &n(0), &fine]),
            // One that nobody knows.
            block(big, 0x0bad, &[b"nothing"]),
            block(big, 6, &[&n(1), &halves[0], &halves[1], &length(&packet), &length(&packet), &packet]),
            block(big, 3, &[&length(&tagged), &tagged]),
        ]
        .concat()
    };
    let whole = [section(false), section(true)].concat();
    dir.write("a.pcapng", &[&whole]);
    dir.write("cut.pcapng", &[&whole[..whole.len() - 5]]);
    let said = dir.replay(&["a.pcapng"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = said.out.lines().collect();
    for (line, begin) in lines.iter().zip(["1 +0.000000 ", "2 +0.000000 ", "3 +2.000001 ", "4 +2.000001 "]) {
        assert!(line.starts_with(begin) && line.contains(" > "), "{line}");
    }
    assert_eq!(lines[5], "4 packets");
    let said = dir.replay(&["cut.pcapng"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("\n3 packets\n") && said.err.contains("packet 4: the file ends in the middle of it"),
        "{}",
        said.err
    );
    let nowhere = block(false, 6, &[&[9, 0, 0, 0], &[0; 8], &[4, 0, 0, 0], &[4, 0, 0, 0], &[0x45; 4]]);
    dir.write("nowhere.pcapng", &[&section(false), &nowhere]);
    let said = dir.replay(&["nowhere.pcapng"]);
    assert!(
        said.code == Some(1) && said.err.contains("packet 3: it names an interface that the file does not describe")
    );
}

#[test]
fn a_packet_that_gets_another_port_shows_it() {
    let dir = TestDir::new("ports");
    let text = "[[service]]\nname = \"web\"\nvip = \"192.0.2.100\"\nprotocol = \"tcp\"\nports = [80]\nport = 8080\n\
                [[service.backend]]\naddress = \"198.51.100.11\"\n";
    dir.write("ports.toml", &[text.as_bytes()]);
    let (client, vip, backend) = ([192, 0, 2, 1], [192, 0, 2, 100], [198, 51, 100, 11]);
    let packet = |from: [u8; 4], to: [u8; 4], ports: [u8; 4], flags: u8| {
        let header = [&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0][..], &from, &to].concat();
        [&header[..], &ports, &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 255, 255, 0, 0, 0, 0]].concat()
    };
    let syn = packet(client, vip, [0x9c, 0x40, 0, 80], 2);
    let answer = packet(backend, client, [0x1f, 0x90, 0x9c, 0x40], 18);
    dir.write("a.pcap", &[&header(101), &record(0, &syn, 40), &record(1, &answer, 40)]);
    let run = |more: &[&str]| {
        let words = [&["replay", "-c", "ports.toml", "a.pcap"][..], more].concat();
        said(&Command::new(dir.path("loaded")).args(words).current_dir(&dir.0).output().unwrap())
    };
    let text = run(&[]);
    assert_eq!(text.code, Some(0), "{}", text.err);
    let lines: Vec<_> = text.out.lines().collect();
    assert!(lines[0].contains(" backend=198.51.100.11:8080 forwarded_new rewrite -> "), "{}", lines[0]);
    assert!(lines[0].contains("192.0.2.1:40000 > 198.51.100.11:8080"), "{}", lines[0]);
    assert!(lines[1].contains("198.51.100.11:8080 > 192.0.2.1:40000") && lines[1].contains("returned"), "{}", lines[1]);
    assert!(lines[1].contains("-> 192.0.2.100:80 > 192.0.2.1:40000"), "{}", lines[1]);
    assert!(run(&["--json"]).out.contains("\"vip_port\":80,\"backend\":\"198.51.100.11\",\"backend_port\":8080"));
}

#[test]
fn a_packet_that_goes_on_as_it_is_shows_its_mark() {
    let dir = TestDir::new("dsr");
    let text = "[[service]]\nname = \"web\"\nvip = \"192.0.2.100\"\nprotocol = \"tcp\"\nports = [80]\nmode = \"dsr\"\n\
                [[service.backend]]\naddress = \"198.51.100.11\"\n";
    dir.write("dsr.toml", &[text.as_bytes()]);
    let syn = [
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 100, 0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0,
        0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0,
    ];
    dir.write("a.pcap", &[&header(101), &record(0, &syn, syn.len())]);
    let words = ["replay", "-c", "dsr.toml", "--write", "b.pcap", "a.pcap"];
    let said = said(&Command::new(dir.path("loaded")).args(words).current_dir(&dir.0).output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let first = said.out.lines().next().unwrap();
    assert!(first.ends_with("flow=new backend=198.51.100.11 forwarded_new mark 0x10000"), "{first}");
    let written = fs::read(dir.path("b.pcap")).unwrap();
    assert!(written.ends_with(&syn), "it would go out as it came in");
}
