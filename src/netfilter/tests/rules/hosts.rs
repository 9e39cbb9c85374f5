//! Hosts that lack something, have the other back end, or were left by a killed instance.

use super::*;

#[test]
fn if_one_family_fails_the_other_is_taken_back() {
    in_namespace("hosts::if_one_family_fails_the_other_is_taken_back", || {
        // An iptables of which the IPv6 half does not work, as with a kernel without ip6table_raw.
        let dir = std::env::temp_dir().join(format!("loaded-tools-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for tool in ["iptables-restore", "iptables-save", "ip6tables-save", "nft"] {
            std::os::unix::fs::symlink(run("sh", &["-c", &format!("command -v {tool}")]).trim(), dir.join(tool))
                .unwrap();
        }
        std::os::unix::fs::symlink("/bin/false", dir.join("ip6tables-restore")).unwrap();
        let tools = Tools::find_in(&[dir.as_path()]).unwrap();
        let error = Installed::install(&rules(&both_families(40)), &tools).unwrap_err().to_string();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(
            error.contains("IPv6 rules: cannot install") && error.contains("ip6tables-restore --noflush"),
            "{error}"
        );
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn what_a_killed_instance_left_goes_and_a_living_one_stays() {
    in_namespace("hosts::what_a_killed_instance_left_goes_and_a_living_one_stays", || {
        let tools = Tools::find().unwrap();
        let queue = bind_queue(60);
        let owned = |queue| queue_owners().unwrap().iter().any(|state| state.queue == queue);
        assert!(owned(60) && !owned(40));
        let owner = queue_owner(60).unwrap().unwrap();
        assert!(owner.contains(&format!("pid {} (", std::process::id())), "{owner}");
        assert_eq!(queue_owner(40).unwrap(), None);

        // Alone, and with the tables made by the dead one: they go too.
        std::mem::forget(install(&both_families(40)));
        assert_eq!(clean_stale(&tools, owned).unwrap().len(), 2);
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));

        // Beside a living one.
        let living = both_families(60);
        let alive =
            Installed::install(&RuleSet::new(&Reach::of(&living), &[60, 61], &steering(&living)), &tools).unwrap();
        let before = saved();
        std::mem::forget(install(&both_families(40)));
        let notes = clean_stale(&tools, owned).unwrap();
        assert!(
            notes.len() == 2 && notes[0].contains("LOADED-40 of a dead instance (queues {40, 41, 42})"),
            "{notes:?}"
        );
        assert_eq!(saved(), before);

        // A new start with the same base replaces what is left in one step and tidies as if it had made it.
        drop(queue);
        leave(alive);
        std::mem::forget(install(&both_families(40)));
        let again = install(&both_families(40));
        assert_eq!(saved().matches("-A PREROUTING -j LOADED-40\n").count(), 2);
        leave(again);
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn the_legacy_back_end_takes_the_same_rules() {
    in_namespace("hosts::the_legacy_back_end_takes_the_same_rules", || {
        let Some(tools) = legacy_tools() else { return println!("skipped: no legacy back end here") };
        let save = || run("iptables-legacy-save", &["-t", "raw"]);
        let mut installed = Installed::install(&rules(&both_families(40)), &tools).unwrap();
        assert_eq!(installed.notes(), [""; 0]);
        assert!(save().contains("-A LOADED-40-Q -m bpf --bytecode"));
        installed.remove().unwrap();
        assert!(!save().contains("-j LOADED"));
        let notes = installed.tidy();
        assert!(!save().contains("LOADED"));
        assert!(notes.len() == 2 && notes[0].contains("legacy"), "{notes:?}");
    });
}

#[test]
fn without_the_matches_socket_and_rpfilter_all_else_works_and_it_is_said() {
    in_namespace("hosts::without_the_matches_socket_and_rpfilter_all_else_works_and_it_is_said", || {
        for missing in [&["socket"][..], &["rpfilter"], &["socket", "rpfilter"]] {
            works_without(missing);
        }
    });
}

/// Whatever fails for another reason, a match that packets are trusted by stays.
#[test]
fn a_failure_that_is_no_missing_match_switches_none_off() {
    in_namespace("hosts::a_failure_that_is_no_missing_match_switches_none_off", || {
        let locked = "echo 'Another app is currently holding the xtables lock' >&2; exit 4";
        let once = std::env::temp_dir().join(format!("loaded-once-{}", std::process::id()));
        let once = once.to_str().unwrap();
        let dir = programs(&format!("*LOADED*) test -e {once} || {{ touch {once}; {locked}; }};;"));
        let installed = Installed::install(&rules(&both_families(40)), &Tools::find_in(&[&dir]).unwrap()).unwrap();
        assert_eq!(installed.notes(), [""; 0]);
        assert!(saved().contains("-A LOADED-40-F -m rpfilter --invert") && saved().contains("LOADED-40-D"));
        leave(installed);
        std::fs::remove_file(once).unwrap();
        std::fs::remove_dir_all(dir).unwrap();

        let dir = programs("*LOADED*'-m rpfilter'*) echo Resource temporarily unavailable >&2; exit 4;;");
        let error = Installed::install(&rules(&both_families(40)), &Tools::find_in(&[&dir]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("Resource temporarily unavailable"), "{error}");
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
        std::fs::remove_dir_all(dir).unwrap();
    });
}

/// A directory of programs that do what this branch of a shell's `case` says for the rules they are given, and otherwise
/// what the real ones do.
fn programs(branch: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("loaded-programs-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    for tool in ["iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save", "nft"] {
        let real = run("sh", &["-c", &format!("command -v {tool}")]);
        let wrapper = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\nrules=$(cat)\ncase $rules in {branch} esac\n\
             printf '%s\\n' \"$rules\" | {} \"$@\"\n",
            real.trim()
        );
        let path = dir.join(tool);
        std::fs::write(&path, wrapper).unwrap();
        run("chmod", &["755", path.to_str().unwrap()]);
    }
    dir
}

/// With the programs of a kernel that lacks these matches.
fn works_without(missing: &[&str]) {
    let patterns = missing.iter().map(|name| format!("*'-m {name}'*")).collect::<Vec<_>>().join("|");
    let dir = programs(&format!("{patterns}) echo no such match >&2; exit 2;;"));
    let tools = Tools::find_in(&[dir.as_path()]).unwrap();
    let mut installed = Installed::install(&rules(&both_families(40)), &tools).unwrap();
    let notes = installed.notes().to_vec();
    let said =
        |name: &str| notes.iter().filter(|n| n.contains(&format!("the kernel has no match xt_{name}, so"))).count();
    let lacks = |name: &str| missing.contains(&name);
    assert_eq!(
        [said("socket"), said("rpfilter")],
        ["socket", "rpfilter"].map(|name| 2 * usize::from(lacks(name))),
        "{notes:?}"
    );
    assert!(saved().contains("-A LOADED-40-Q -j CT --notrack"));
    assert_eq!(saved().contains("LOADED-40-D"), !lacks("socket"));
    assert_eq!(saved().contains("LOADED-40-F"), !lacks("rpfilter"));
    installed.remove().unwrap();
    assert_eq!(installed.tidy(), [""; 0]);
    assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    std::fs::remove_dir_all(dir).unwrap();
}
