use super::backend::{BackendLine, BackendOrder as Order, MemberLine, deadline};
use super::*;
use loaded_config::plan::MAX_DRAIN;
use loaded_control::{FlowQuery, Tuple};

fn options(arguments: &str) -> Result<Options, ErrorKind> {
    let words = std::iter::once("loaded").chain(arguments.split_whitespace());
    parse(words).map_err(|error| error.kind())
}

#[test]
fn the_definition_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn the_originals_letters_and_long_forms_agree() {
    let letters = options("-4 -c a -c b -f -D -Q 5 -U nobody").unwrap();
    let words = "--ipv4 --config a --config b --failover --foreground --queue-len 5 --user nobody";
    assert_eq!(letters, options(words).unwrap());
    assert_eq!(letters.config, [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!(letters.overrides.families, Families::V4);
    assert!(letters.foreground && letters.overrides.failover);
    assert_eq!(letters.task, Task::Serve);
    assert_eq!(options("").unwrap().overrides, Overrides::default());
    assert_eq!(options("-6").unwrap().overrides.families, Families::V6);
}

#[test]
fn contradictions_and_ranges_are_refused() {
    assert_eq!(options("-4 -6"), Err(ErrorKind::ArgumentConflict));
    assert_eq!(options("--check --selftest"), Err(ErrorKind::ArgumentConflict));
    assert_eq!(options("-Q 0"), Err(ErrorKind::ValueValidation));
    assert_eq!(options("-Q 10485761"), Err(ErrorKind::ValueValidation));
    assert_eq!(options("--queue-base 65536"), Err(ErrorKind::ValueValidation));
    assert_eq!(options("--print-sandbox kernel"), Err(ErrorKind::InvalidValue));
    assert_eq!(options("loaded.config"), Err(ErrorKind::InvalidSubcommand));
}

#[test]
fn one_task_at_a_time() {
    assert_eq!(options("--check").unwrap().task, Task::Check);
    assert_eq!(options("--selftest").unwrap().task, Task::Selftest);
    assert_eq!(options("--print-sandbox worker").unwrap().task, Task::PrintSandbox(SandboxedRole::Worker));
    assert_eq!(options("-V"), Err(ErrorKind::DisplayVersion));
}

#[test]
fn commands_are_explained_on_request() {
    for line in ["help", "help status", "help backend drain", "status --help", "--help"] {
        assert_eq!(options(line), Err(ErrorKind::DisplayHelp), "{line}");
    }
    assert_eq!(options("help stauts"), Err(ErrorKind::InvalidSubcommand));
}

#[test]
fn an_instance_that_runs_is_asked_by_subcommands() {
    let asked = |line: &str| options(line).map(|options| options.task);
    assert_eq!(asked("status"), Ok(Task::Ask(Ask::Status { json: false, exit_code: false, watch: None })));
    assert_eq!(asked("history -n 5 --json"), Ok(Task::Ask(Ask::History { last: 5, json: true })));
    assert_eq!(asked("history"), Ok(Task::Ask(Ask::History { last: 20, json: false })));
    assert_eq!(asked("metrics"), Ok(Task::Ask(Ask::Metrics)));
    let backend = |service: Option<&str>| BackendLine {
        named: "2001:db8::1".parse().unwrap(),
        service: service.map(str::to_owned),
    };
    let drain = Order::Drain { backend: backend(Some("web")), deadline: Some(300) };
    let line = "backend drain 2001:db8::1 --service web --deadline 5m";
    assert_eq!(asked(line), Ok(Task::Ask(Ask::Backend { order: drain })));
    let enable = Order::Enable { backend: backend(None) };
    assert_eq!(asked("backend enable 2001:db8::1"), Ok(Task::Ask(Ask::Backend { order: enable })));
    let named = BackendLine { named: "[2001:db8::1]:8080".parse().unwrap(), service: None };
    let disable = Order::Disable { backend: named };
    assert_eq!(asked("backend disable [2001:db8::1]:8080"), Ok(Task::Ask(Ask::Backend { order: disable })));
    let member = |named: &str| MemberLine { service: "web".to_owned(), named: named.parse().unwrap() };
    let add = Order::Add { backend: member("198.51.100.11:8080"), weight: Some(3), backup: true };
    let line = "backend add web 198.51.100.11:8080 --weight 3 --backup";
    assert_eq!(asked(line), Ok(Task::Ask(Ask::Backend { order: add })));
    let remove = Order::Remove { backend: member("2001:db8::1") };
    assert_eq!(asked("backend remove web 2001:db8::1"), Ok(Task::Ask(Ask::Backend { order: remove })));
    let weight = Order::Weight { backend: member("::1"), weight: 256 };
    assert_eq!(asked("backend weight web ::1 256"), Ok(Task::Ask(Ask::Backend { order: weight })));
    for wrong in ["add web ::1 --weight 0", "weight web ::1 257", "weight web ::1 0", "add web host"] {
        assert_eq!(asked(&format!("backend {wrong}")), Err(ErrorKind::ValueValidation), "{wrong}");
    }
    assert_eq!(asked("config show --save"), Ok(Task::SaveConfig));
    assert_eq!(asked("config show --save -c a"), Err(ErrorKind::ArgumentConflict));
    assert_eq!(asked("backend enable host"), Err(ErrorKind::ValueValidation));
    assert_eq!(asked("backend enable 198.51.100.11:0"), Err(ErrorKind::ValueValidation));
    assert_eq!(asked("backend disable ::1 --deadline 5m"), Err(ErrorKind::UnknownArgument));
    assert_eq!(asked("history -n 0"), Err(ErrorKind::ValueValidation));
    assert_eq!(asked("history -n 1001"), Err(ErrorKind::ValueValidation));
}

#[test]
fn flows_are_named_by_what_they_have() {
    let query = |line: &str| match options(line).map(|options| options.task) {
        Ok(Task::Ask(Ask::Flows(line))) => Ok(line.query()),
        other => Err(other),
    };
    let any = FlowQuery { limit: 100, ..FlowQuery::default() };
    assert_eq!(query("flows"), Ok(any.clone()));
    let client = |text: &str, length| Some((text.parse().unwrap(), length));
    let of = |client| Ok(FlowQuery { client, ..any.clone() });
    assert_eq!(query("flows --client 192.0.2.7"), of(client("192.0.2.7", 32)));
    assert_eq!(query("flows --client 2001:db8::/64"), of(client("2001:db8::", 64)));
    let backend = "198.51.100.11".parse().ok();
    let named = FlowQuery { backend, port: Some(8080), service: Some("web".to_owned()), ..any.clone() };
    assert_eq!(query("flows --backend 198.51.100.11:8080 --service web"), Ok(named));
    let some = FlowQuery { state: Some("half_open".to_owned()), limit: 0, ..any };
    assert_eq!(query("flows --state half_open --limit 0"), Ok(some));
    for wrong in ["--limit 10001", "--client 192.0.2.7/33", "--client host", "--state open", "--backend host"] {
        assert!(query(&format!("flows {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn options_for_starting_do_not_go_with_a_subcommand() {
    let path = Some(PathBuf::from("/a.sock"));
    for line in ["--control /a.sock status", "status --control /a.sock", "--control /a.sock -D"] {
        assert_eq!(options(line).unwrap().control, path, "{line}");
    }
    for line in ["-f status", "--check metrics", "-c file history", "-Q 5 status", "--pid-file p backend enable ::1"] {
        assert_eq!(options(line), Err(ErrorKind::ArgumentConflict), "{line}");
    }
    assert!(options("--control a.sock").unwrap().control.unwrap().is_absolute());
}

#[test]
fn a_diff_is_a_kind_of_check() {
    assert_eq!(options("--check --diff -c a").unwrap().task, Task::Diff);
    assert_eq!(options("--diff --selftest"), Err(ErrorKind::ArgumentConflict));
    assert_eq!(options("--diff"), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(options("--check --diff status"), Err(ErrorKind::ArgumentConflict));
}

#[test]
fn deadlines_are_one_number_and_one_unit() {
    assert_eq!(deadline("90s"), Ok(90));
    assert_eq!(deadline("5m"), Ok(300));
    assert_eq!(deadline("2h"), Ok(7200));
    assert_eq!(deadline("7d"), Ok(MAX_DRAIN));
    for wrong in ["", "s", "0s", "5", "+5s", "-5s", "8d", "500ms", "1h30m", "4294967295d", "5ü"] {
        assert!(deadline(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_doctor_takes_a_configuration_of_its_own() {
    let asked = options("doctor -c a.toml").unwrap();
    assert_eq!((asked.task, asked.config), (Task::Doctor, vec!["a.toml".into()]));
    assert_eq!(options("-c a.toml doctor"), Err(ErrorKind::ArgumentConflict));
}

#[test]
fn files_of_other_balancers_are_named_or_piped_in() {
    let asked = |line: &str| options(line).map(|options| options.task);
    let line = |files: &[&str], from, vip: &[&str], failover| {
        let files = files.iter().map(PathBuf::from).collect();
        let vip = vip.iter().map(|vip| vip.parse().unwrap()).collect();
        Ok(Task::Migrate(MigrateLine { files, from, vip, failover }))
    };
    assert_eq!(asked("migrate keepalived.conf"), line(&["keepalived.conf"], None, &[], false));
    assert_eq!(
        asked("migrate --from nginx --vip 192.0.2.1 --vip 2001:db8::1 -"),
        line(&["-"], Some(migrate::FormatName::Nginx), &["192.0.2.1", "2001:db8::1"], false)
    );
    assert_eq!(asked("migrate --failover a b"), line(&["a", "b"], None, &[], true));
    assert_eq!(asked("migrate"), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(asked("migrate --from haproxy a"), Err(ErrorKind::InvalidValue));
}

#[test]
fn a_replay_has_a_configuration_of_its_own() {
    let line = |config: &[&str], write: Option<&str>, json| {
        let (config, write) = (config.iter().map(PathBuf::from).collect(), write.map(PathBuf::from));
        Ok(Task::Replay(ReplayLine { file: "a.pcap".into(), config, write, json }))
    };
    let asked = |text: &str| options(text).map(|options| options.task);
    assert_eq!(asked("replay a.pcap"), line(&[], None, false));
    assert_eq!(asked("replay -c a -c b a.pcap --write b.pcap --json"), line(&["a", "b"], Some("b.pcap"), true));
    assert_eq!(asked("replay"), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(asked("-c a replay a.pcap"), Err(ErrorKind::ArgumentConflict));
    assert_eq!(asked("replay a.pcap b.pcap"), Err(ErrorKind::UnknownArgument));
}

#[test]
fn a_packet_is_named_by_its_protocol_and_ends() {
    let tuple = |line: &str| match options(line).map(|options| options.task) {
        Ok(Task::Ask(Ask::Explain(line))) => line.tuple().map_err(|_| None),
        Ok(other) => panic!("{other:?}"),
        Err(kind) => Err(Some(kind)),
    };
    let told = |protocol, client: &str, client_port, vip: &str, vip_port| {
        let (client, vip) = (client.parse().unwrap(), vip.parse().unwrap());
        Ok(Tuple { protocol, client, client_port, vip, vip_port })
    };
    let tcp = told(6, "192.0.2.7", 40000, "203.0.113.1", 443);
    assert_eq!(tuple("explain tcp 192.0.2.7:40000 203.0.113.1:443"), tcp);
    assert_eq!(tuple("explain 6 192.0.2.7:40000 203.0.113.1:443 --json"), tcp);
    let udp = told(17, "2001:db8::7", 1, "2001:db8::1", 53);
    assert_eq!(tuple("explain udp [2001:db8::7]:1 [2001:db8::1]:53"), udp);
    assert_eq!(tuple("explain icmp 192.0.2.7:9 203.0.113.1"), told(1, "192.0.2.7", 9, "203.0.113.1", 0));
    assert_eq!(tuple("explain icmp 2001:db8::7 [2001:db8::1]"), told(1, "2001:db8::7", 0, "2001:db8::1", 0));
    assert_eq!(tuple("explain esp 192.0.2.7 203.0.113.1"), told(50, "192.0.2.7", 0, "203.0.113.1", 0));
    for wrong in ["tcp 192.0.2.7 203.0.113.1:443", "icmp 192.0.2.7 203.0.113.1:7", "gre 192.0.2.7:1 203.0.113.1"] {
        assert_eq!(tuple(&format!("explain {wrong}")), Err(None), "{wrong}");
    }
    for wrong in ["tpc 192.0.2.7:1 203.0.113.1:2", "256 192.0.2.7 203.0.113.1", "tcp host:1 203.0.113.1:2", "tcp :1 :2"]
    {
        assert_eq!(tuple(&format!("explain {wrong}")), Err(Some(ErrorKind::ValueValidation)), "{wrong}");
    }
}
