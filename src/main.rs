//! Which role is this process? Without `--role` it is the supervisor, or one of its errands.
#![forbid(unsafe_code)]

mod cli;
mod role;

use cli::Task;
use loaded_jail::{Floor, Role, policy};
use loaded_supervisor::{Error, daemon, run};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(worker) = role::worker(&arguments) {
        loaded_worker::run(&worker);
    }
    let detached = arguments.iter().position(|a| a == daemon::DETACHED).map(|at| arguments.remove(at)).is_some();
    let options = cli::read(&arguments);
    let floor = if options.allow_weak_sandbox { Floor::AllowWeak } else { Floor::Required };
    let run_options = run::Options {
        config: options.config,
        overrides: options.overrides,
        detached,
        pid_file: options.pid_file,
        floor,
    };
    let done = match options.task {
        Task::Serve if options.foreground || detached || daemon::is_managed() => run::run(&run_options).map(|()| 0),
        Task::Serve => daemon::start(&arguments[1..]),
        Task::Check => check(&run_options).map(|text| say(&text)),
        Task::PrintSandbox(role) => Ok(say(&policy::print(role.into()))),
        Task::Selftest => Ok(loaded_worker::selftest::run(floor)),
    };
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            // What a file or an argument has said must not move the terminal's cursor.
            let text: String =
                error.to_string().chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
            let _ = writeln!(std::io::stderr(), "loaded: error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &run::Options) -> Result<String, Error> {
    let loaded = run::check(options)?;
    let notes: String = loaded.notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(format!("{notes}{}", loaded.plan))
}

/// Prints to stdout and returns the exit code: a full disk is no reason to panic.
fn say(text: &str) -> i32 {
    i32::from(std::io::stdout().write_all(text.as_bytes()).is_err())
}

impl From<cli::Role> for Role {
    fn from(role: cli::Role) -> Self {
        match role {
            cli::Role::Worker => Self::Worker,
            cli::Role::Prober => Self::Prober,
            cli::Role::Supervisor => Self::Supervisor,
        }
    }
}
