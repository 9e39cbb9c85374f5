//! Which role is this process? Without `--role` it is the supervisor, or one of its errands.
#![forbid(unsafe_code)]

mod cli;
mod doctor;
mod drain;
mod events;
mod health;
mod migrate;
mod notice;
mod replay;
mod role;
mod save;
mod top;

use cli::{Ask, EventsLine, Task};
use loaded_config::ConfigError;
use loaded_config::plan::written;
use loaded_control::{self as control, Reply, Request};
use loaded_netfilter::trial;
use loaded_sandbox::selftest::{self, ExporterTestbed, ProberTestbed, examine_exporter, examine_prober};
use loaded_sandbox::{PingKind, Role, SandboxPolicy, SandboxRequirement, begin_session, offer_to_oom, policy};
use loaded_supervisor::{Error, SUCCESSOR, daemon, last_words, run};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Whatever it is, the operator gets its text.
type AnyError = Box<dyn std::error::Error>;

/// What `--check` leaves to the start.
const UNEXAMINED: &str =
    "whether kernel, interfaces, routes, sysctls and firewall let it serve: loaded doctor examines these";

const UNASKED: &str = "the answer does not fit the question: does the instance run another version?";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = run_as_child(&arguments) {
        return code;
    }
    let mut flag = |name| arguments.iter().position(|a| a == name).map(|at| arguments.remove(at)).is_some();
    let (detached, successor) = (flag(daemon::DETACHED), flag(SUCCESSOR));
    let options = cli::read(&arguments);
    let stays = options.foreground || detached || successor || daemon::is_managed();
    let run_options = run::Options {
        config: options.config,
        overrides: options.overrides,
        detached,
        successor,
        pid_file: options.pid_file,
        control: options.control,
        wait: Duration::from_secs(options.wait.into()),
        sandbox: if options.allow_weak_sandbox { SandboxRequirement::AllowWeak } else { SandboxRequirement::Required },
    };
    let done = match options.task {
        Task::Serve if !stays => daemon::start(&arguments[1..]).map_err(AnyError::from),
        task => carry_out(task, &run_options),
    };
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            for text in reports(&error) {
                // What a file or an argument has said must not move the terminal's cursor.
                last_words(&format!("loaded: error: {}", control::text::plain(&text)));
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs the role that the supervisor has started this process for, to its end; `None` if an operator has started it.
fn run_as_child(arguments: &[OsString]) -> Option<ExitCode> {
    if let Some(worker) = role::worker(arguments) {
        begin_session();
        // Where it cannot be, it is as unlikely a victim as the supervisor.
        let _ = offer_to_oom();
        loaded_worker::run(&worker);
    }
    if let Some(prober) = role::prober(arguments) {
        begin_session();
        let _ = offer_to_oom();
        loaded_prober::run(&prober);
    }
    if let Some(exporter) = role::exporter(arguments) {
        begin_session();
        let _ = offer_to_oom();
        loaded_exporter::run(&exporter);
    }
    if let Some((identity, program)) = role::notice(arguments) {
        return Some(notice::run(&identity, &program));
    }
    role::is_trial(arguments).then(|| {
        trial::run(selftest::raise_loopback);
        ExitCode::SUCCESS
    })
}

/// Does what the command line asks for, in this process; returns the exit code.
fn carry_out(task: Task, options: &run::Options) -> Result<i32, AnyError> {
    let control = options.control.as_deref();
    match task {
        Task::Serve => run::run(options).map(|()| 0).map_err(AnyError::from),
        Task::Check => check(options),
        Task::Diff => diff(control, &options.config).map(|text| say(&text)),
        Task::ShowConfig(files) => show_config(control, &files).map(|text| say(&text)),
        Task::SaveConfig => save::save(control).map(|text| say(&text)),
        Task::Replay(line) => replay::run(&line),
        Task::Migrate(line) => Ok(migrate::run(&line)),
        Task::Ask(Ask::Health(line)) => {
            let (text, code) = health::examine(control, &line);
            Ok(say(&text).max(code))
        }
        Task::Ask(Ask::Status { json, exit_code: true, .. }) => {
            let shown =
                |status: &control::Status| if json { self::json(status) } else { Ok(control::text::status(status)) };
            health::of_status(control, shown).map(|(text, code)| say(&text).max(code))
        }
        Task::Ask(Ask::Drain(line)) if !line.cancel => drain::drain(control, &line),
        Task::Ask(Ask::Status { watch: Some(seconds), .. }) => top::watch(control, Duration::from_secs(seconds.into())),
        Task::Ask(Ask::Top(line)) => top::run(control, &line),
        Task::Ask(Ask::Events(line)) => events::run(control, &line),
        Task::Ask(question) => ask(control, question).map(|text| say(&text)),
        Task::PrintSandbox(role) => Ok(say(&policy::print(role.into()))),
        Task::Selftest => selftest(options.sandbox),
        Task::Doctor => Ok(examine(options)),
    }
}

// A build for tests can weaken the sandbox and take its own children over. It must never be mistaken for a release.
const _: () = assert!(cfg!(debug_assertions) || !(cfg!(feature = "hostile") || loaded_sandbox::FOR_TESTS));

/// What is wrong; of files, each mistake with the line that it is in.
fn reports(error: &AnyError) -> Vec<String> {
    match (error.downcast_ref::<ConfigError>(), error.downcast_ref::<Error>()) {
        (Some(error), _) => error.reports(),
        (_, Some(error)) => error.reports(),
        _ => vec![error.to_string()],
    }
}

/// Tries to break out of the worker's sandbox and then, in namespaces of their own, out of the prober's and the exporter's.
fn selftest(requirement: SandboxRequirement) -> Result<i32, AnyError> {
    let code = loaded_worker::selftest::run(requirement);
    if code != 0 {
        return Ok(code);
    }
    // With checks by UDP, so that what they need is tried too.
    let results =
        examine_prober(&ProberTestbed::set_up(PingKind::Raw)?, &SandboxPolicy::prober(true), true, requirement)?;
    let said = say(&format!("\nprober\n{}", selftest::table(&results)));
    let red = !selftest::red(&results).is_empty();
    let results = examine_exporter(&ExporterTestbed::set_up()?, &SandboxPolicy::exporter(), requirement)?;
    let said = said.max(say(&format!("\nexporter\n{}", selftest::table(&results))));
    Ok(said.max(i32::from(red || !selftest::red(&results).is_empty())))
}

/// Prints what stands in the way on this host. The exit code is 1 if nothing would be balanced.
fn examine(options: &run::Options) -> i32 {
    let findings = doctor::examine(options);
    let text: String = findings.iter().map(|finding| control::text::plain(&format!("{finding}\n"))).collect();
    let fatal = findings.iter().any(|finding| finding.grade == doctor::Grade::Fatal);
    say(&text).max(i32::from(fatal))
}

/// Prints the plan. The exit code is 1 if the configuration is good, but this host lacks what every start needs.
fn check(options: &run::Options) -> Result<i32, AnyError> {
    let loaded = run::check(options)?;
    let notes: String = loaded.notes.iter().map(|note| format!("note: {note}\n")).collect();
    let files: String = loaded.files().map(|file| format!("file         {}\n", file.display())).collect();
    let plan = format!("{notes}{files}{}not examined {UNEXAMINED}\n", loaded.plan);
    let said = say(&control::text::plain(&plan));
    let lacking = run::lacking();
    for error in &lacking {
        let _ = writeln!(io::stderr(), "loaded: error: the configuration is good, but a start would fail: {error}");
    }
    Ok(said.max(i32::from(!lacking.is_empty())))
}

/// What HUP would change in the instance that runs, if it read these files (none: its own).
fn diff(socket: Option<&Path>, files: &[PathBuf]) -> Result<String, AnyError> {
    let files = files.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    match control::ask(socket, &Request::Diff { files })? {
        Reply::Diff { lines } if lines.is_empty() => Ok("nothing would change\n".to_owned()),
        Reply::Diff { lines } => Ok(joined(&lines)),
        _ => Err(UNASKED.into()),
    }
}

/// The configuration in these files, or of the instance that runs if there are none, as a TOML file.
fn show_config(socket: Option<&Path>, files: &[PathBuf]) -> Result<String, AnyError> {
    if !files.is_empty() {
        let loaded = loaded_config::load(files, &loaded_config::Overrides::default())?;
        let notes = loaded.notes.iter().flat_map(|note| note.lines());
        let notes: String = notes.map(|line| format!("# {}\n", control::text::plain(line))).collect();
        return Ok(format!("{notes}{}", written(&loaded.plan)));
    }
    match control::ask(socket, &Request::Config)? {
        Reply::Config { text } => Ok(control::text::plain(&text)),
        _ => Err(UNASKED.into()),
    }
}

/// Asks the instance that runs, and makes text of its answer.
fn ask(socket: Option<&Path>, question: Ask) -> Result<String, AnyError> {
    let request = match question.clone() {
        Ask::Status { .. } | Ask::Metrics => Request::Status,
        Ask::Health(_) => Request::Health,
        Ask::History { last, .. } => Request::History { last: last.into() },
        Ask::Backend { order } => order.request(),
        Ask::Explain(line) => Request::Explain(line.tuple()?),
        // To drain takes more than one question: see `drain`.
        Ask::Drain(_) => Request::CancelDrain,
        // These two ask again and again: see `top` and `events`.
        Ask::Top(_) => Request::Status,
        Ask::Events(EventsLine { last, .. }) => Request::History { last: last.into() },
        Ask::Flows(line) if line.end => Request::EndFlows(line.query()),
        Ask::Flows(line) => Request::Flows(line.query()),
    };
    Ok(match (question, control::ask(socket, &request)?) {
        (Ask::Status { json: false, .. }, Reply::Status(status)) => control::text::status(&status),
        (Ask::Status { json: true, .. }, Reply::Status(status)) => json(&status)?,
        (Ask::Metrics, Reply::Status(status)) => control::metrics::render(&status),
        (Ask::History { json: false, .. }, Reply::History(events)) => control::text::history(&events),
        (Ask::History { json: true, .. }, Reply::History(events)) => json(&events)?,
        (Ask::Backend { .. }, Reply::Done { lines }) => joined(&lines),
        (Ask::Drain(_), Reply::Done { lines }) => joined(&lines),
        (Ask::Explain(line), Reply::Explained(explanation)) => match line.json {
            true => json(&explanation)?,
            false => control::explain::text(&explanation),
        },
        (Ask::Flows(line), Reply::Ended(ended)) => match line.json {
            true => json(&ended)?,
            false => control::flows::ended(&ended),
        },
        (Ask::Flows(line), Reply::Flows(list)) => match line.json {
            true => json(&list)?,
            false => control::flows::text(&list),
        },
        _ => return Err(UNASKED.into()),
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, AnyError> {
    Ok(control::text::plain(&format!("{}\n", serde_json::to_string_pretty(value)?)))
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{}\n", control::text::plain(line))).collect()
}

/// Prints to stdout and returns the exit code: a full disk is no reason to panic.
fn say(text: &str) -> i32 {
    i32::from(io::stdout().write_all(text.as_bytes()).is_err())
}

impl From<cli::SandboxedRole> for Role {
    fn from(role: cli::SandboxedRole) -> Self {
        match role {
            cli::SandboxedRole::Worker => Self::Worker,
            cli::SandboxedRole::Prober => Self::Prober,
            cli::SandboxedRole::Exporter => Self::Exporter,
            cli::SandboxedRole::Supervisor => Self::Supervisor,
        }
    }
}
