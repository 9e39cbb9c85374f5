//! What is in the kernel after installing, changing and removing.

use super::*;

#[test]
fn nothing_is_left_and_foreign_rules_stay() {
    in_namespace("install::nothing_is_left_and_foreign_rules_stay", || {
        restore("iptables-restore", FOREIGN);
        let (before, tables) = (saved(), nft_tables());
        let installed = install(&both_families(40));
        let during = saved();
        assert!(during.contains("-A PREROUTING -j LOADED-40\n-A PREROUTING -s 203.0.113.7/32 -j DROP\n"), "{during}");
        assert_eq!(during.matches("-A PREROUTING -j LOADED-40\n").count(), 2, "{during}");
        leave(installed);
        assert_eq!(saved(), before);
        assert_eq!(nft_tables(), tables);
    });
}

#[test]
fn a_host_without_rules_is_left_without_tables() {
    in_namespace("install::a_host_without_rules_is_left_without_tables", || {
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
        leave(install(&both_families(40)));
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn a_table_that_others_began_to_use_stays() {
    in_namespace("install::a_table_that_others_began_to_use_stays", || {
        let mut installed = install(&both_families(40));
        restore("iptables-restore", "*raw\n-A PREROUTING -s 203.0.113.7/32 -j DROP\nCOMMIT\n");
        run("nft", &["add", "chain", "ip6", "raw", "foreign"]);
        installed.remove().unwrap();
        let _ = installed.tidy();
        assert!(saved().contains("-A PREROUTING -s 203.0.113.7/32 -j DROP"));
        assert!(run("nft", &["list", "table", "ip6", "raw"]).contains("chain foreign"));
    });
}

#[test]
fn the_kernel_prints_back_what_was_asked_for() {
    in_namespace("install::the_kernel_prints_back_what_was_asked_for", || {
        for protocol in [Protocol::Any, Protocol::Tcp] {
            let plan = plan(40, &[VIP4, VIP6], &BACKENDS, protocol);
            let installed = install(&plan);
            let (kernel, asked) = (saved(), Family::ALL.map(|family| rules(&plan).text(family).unwrap()).concat());
            let ours = |text: &str| {
                let mut lines: Vec<_> =
                    text.lines().filter(|l| l.starts_with("-A LOADED")).map(str::to_owned).collect();
                lines.sort_unstable();
                lines
            };
            assert_eq!(ours(&kernel), ours(&asked));
            leave(installed);
        }
    });
}

#[test]
fn an_update_is_exact_and_a_refused_one_changes_nothing() {
    in_namespace("install::an_update_is_exact_and_a_refused_one_changes_nothing", || {
        let many: Vec<String> = (1..=40).map(|n| format!("198.51.100.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (small, large) = (both_families(40), plan(40, &[VIP4], &many, Protocol::Tcp));
        let mut installed = install(&small);
        let first = saved();
        installed.update(&rules(&large)).unwrap();
        assert!(saved().contains("-A LOADED-40-B1 ") && !saved().contains(VIP6));
        installed.update(&rules(&small)).unwrap();
        assert_eq!(saved(), first);

        // A foreign jump to a chain that the next rules do without makes the kernel refuse the change of IPv4.
        installed.update(&rules(&large)).unwrap();
        restore("iptables-restore", "*raw\n:MINE - [0:0]\n-A MINE -j LOADED-40-B1\nCOMMIT\n");
        let held = saved();
        let error = installed.update(&rules(&small)).unwrap_err().to_string();
        assert!(error.contains("IPv4 rules: cannot change"), "{error}");
        assert_eq!(saved(), held);
        let error = installed.remove().unwrap_err().to_string();
        assert!(error.contains("does a foreign rule jump to one?"), "{error}");
        assert!(!saved().contains("-A PREROUTING") && !saved().contains("NFQUEUE"), "cut off all the same");
    });
}

#[test]
fn the_largest_plan_is_taken() {
    in_namespace("install::the_largest_plan_is_taken", || {
        let names: Vec<String> = (0..2048)
            .flat_map(|n| [format!("10.8.{}.{}", n / 256, n % 256), format!("2001:db8:{n:x}:a:b:c:d:e")])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = plan(40, &[VIP4, VIP6], &names, Protocol::Tcp);
        let started = std::time::Instant::now();
        let installed = install(&plan);
        println!("4096 backends, both families: installed in {:?}", started.elapsed());
        let started = std::time::Instant::now();
        leave(installed);
        println!("removed in {:?}", started.elapsed());
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}
