//! Settings below a directory that stands for /proc/sys/net.

use super::*;
use crate::problem::Severity;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const ACCEPT: &str = "ipv4/conf/eth1/accept_local";
const FORWARD: &str = "ipv4/conf/eth1/forwarding";

struct Tree(PathBuf);

impl Tree {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("loaded-settings-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let tree = Self(root);
        for key in [ACCEPT, FORWARD, FORWARDS] {
            fs::create_dir_all(tree.0.join(key).parent().unwrap()).unwrap();
            tree.set(key, 0);
        }
        tree
    }

    fn set(&self, key: &str, value: i64) {
        fs::write(self.0.join(key), format!("{value}\n")).unwrap();
    }

    fn get(&self, key: &str) -> i64 {
        fs::read_to_string(self.0.join(key)).unwrap().trim().parse().unwrap()
    }

    fn settings(&self) -> HostSettings {
        HostSettings::below(self.0.clone())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn problem(keys: &[&str]) -> Problem {
    let settings = keys.iter().map(|key| Setting { key: (*key).to_owned(), value: 1 }).collect();
    Problem { settings, ..Problem::new("host", Severity::Fatal, "packets are lost") }
}

fn set(settings: &mut HostSettings, keys: &[&str]) -> Vec<String> {
    let noted = settings.note(&[problem(keys), problem(keys)], Instant::now());
    settings.write(&noted)
}

#[test]
fn what_was_written_is_put_back_and_what_was_so_is_left_alone() {
    let tree = Tree::new("back");
    tree.set(FORWARD, 1);
    let mut settings = tree.settings();
    assert_eq!(set(&mut settings, &[ACCEPT, FORWARD]), ["net.ipv4.conf.eth1.accept_local=1 (was 0)"]);
    assert_eq!((tree.get(ACCEPT), settings.written().len()), (1, 1));
    assert_eq!(set(&mut settings, &[ACCEPT]), [""; 0], "once");
    assert_eq!(settings.put_back(&[]), ["net.ipv4.conf.eth1.accept_local=0 put back"]);
    assert_eq!((tree.get(ACCEPT), tree.get(FORWARD)), (0, 1));
    assert_eq!(settings.put_back(&[]), [""; 0]);
}

#[test]
fn what_somebody_else_has_changed_since_is_his() {
    let tree = Tree::new("his");
    let mut settings = tree.settings();
    set(&mut settings, &[ACCEPT]);
    tree.set(ACCEPT, 2);
    assert_eq!(settings.put_back(&[]), ["net.ipv4.conf.eth1.accept_local stays 2"]);
    assert_eq!(tree.get(ACCEPT), 2);
    // Set again while it serves: his value is the one to put back.
    tree.set(ACCEPT, 0);
    set(&mut settings, &[ACCEPT]);
    tree.set(ACCEPT, 2);
    assert_eq!(set(&mut settings, &[ACCEPT]), ["net.ipv4.conf.eth1.accept_local=1 (was 2)"]);
    settings.put_back(&[]);
    assert_eq!(tree.get(ACCEPT), 2);
    // Its interface is gone.
    set(&mut settings, &[ACCEPT]);
    fs::remove_file(tree.0.join(ACCEPT)).unwrap();
    assert_eq!(settings.put_back(&[]), [""; 0]);
}

/// ip_forward sets every interface: our old value would turn off what somebody else has turned on.
#[test]
fn forwarding_of_an_interface_stays_if_all_forward_by_now() {
    let tree = Tree::new("whole");
    let mut settings = tree.settings();
    set(&mut settings, &[FORWARD, ACCEPT]);
    tree.set(FORWARDS, 1);
    let told = settings.put_back(&[]);
    assert_eq!(told, ["net.ipv4.conf.eth1.accept_local=0 put back", "net.ipv4.conf.eth1.forwarding stays 1"]);
    assert_eq!((tree.get(FORWARD), tree.get(ACCEPT)), (1, 0));
}

#[test]
fn what_another_instance_may_need_stays() {
    let tree = Tree::new("others");
    let mut settings = tree.settings();
    set(&mut settings, &[ACCEPT]);
    assert_eq!(settings.put_back(&[7]), ["net.ipv4.conf.eth1.accept_local stays 1"]);
    assert_eq!(tree.get(ACCEPT), 1);
}

#[test]
fn a_supervisor_puts_back_what_the_one_before_has_written() {
    let tree = Tree::new("inherited");
    let mut first = tree.settings();
    set(&mut first, &[ACCEPT, FORWARD]);
    let journal = serde_json::to_string(first.written()).unwrap();
    // It is killed: nothing of it is put back.
    std::mem::forget(first);
    let before: Vec<WrittenSetting> = serde_json::from_str(&journal).unwrap();
    tree.set(FORWARD, 0);
    let mut second = tree.settings();
    set(&mut second, &[FORWARD]);
    second.inherit(&before);
    assert_eq!(second.written().len(), 2);
    second.put_back(&[]);
    assert_eq!((tree.get(ACCEPT), tree.get(FORWARD)), (0, 0));
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let tree = Tree::new("failed");
    let mut settings = tree.settings();
    set(&mut settings, &[ACCEPT]);
    drop(settings);
    assert_eq!(tree.get(ACCEPT), 0);
}

#[test]
fn two_programs_do_not_take_turns_for_ever() {
    let tree = Tree::new("turns");
    let mut settings = tree.settings();
    for _ in 0..OFTEN {
        assert_eq!(set(&mut settings, &[ACCEPT]).len(), 1);
        tree.set(ACCEPT, 0);
    }
    assert_eq!(set(&mut settings, &[ACCEPT]), [""; 0]);
    assert!(settings.refused().next().unwrap().contains("another program has set it to 0 5 times"));
    let later = Instant::now() + WINDOW;
    assert_eq!(settings.note(&[problem(&[ACCEPT])], later).len(), 1);
}

#[test]
fn what_cannot_be_written_is_told_and_not_remembered() {
    let tree = Tree::new("refused");
    // Root may write everything but a directory.
    let path: &Path = &tree.0.join(ACCEPT);
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
    let mut settings = tree.settings();
    let noted = settings.note(&[problem(&[ACCEPT])], Instant::now());
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    assert_eq!(settings.write(&noted), [""; 0]);
    assert!(settings.refused().next().unwrap().starts_with("host = \"set\": net.ipv4.conf.eth1.accept_local=1 cannot"));
    assert_eq!(settings.written(), []);
    assert_eq!(settings.note(&[], Instant::now()), []);
    assert_eq!(settings.refused().count(), 0, "nobody needs it any more");
    let read_only = reason(&io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
    assert!(read_only.contains("ProtectKernelTunables=no"), "{read_only}");
}
