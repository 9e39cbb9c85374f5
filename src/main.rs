//! Which role is this process? Without `--role` it is the supervisor, or one of its errands.
#![forbid(unsafe_code)]

mod cli;
mod role;

use cli::Task;
use loaded_jail::{Floor, Role, policy};
use loaded_supervisor::{Error, daemon, run};
use std::ffi::OsString;
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
        foreground: options.foreground,
        detached,
        pid_file: options.pid_file,
        floor,
    };
    let done = match options.task {
        Task::Serve if options.foreground || detached || daemon::is_managed() => run::run(&run_options).map(|()| 0),
        Task::Serve => daemon::start(&arguments[1..]),
        Task::Check => check(&run_options).map(|()| 0),
        Task::PrintSandbox(role) => {
            print!("{}", policy::print(role.into()));
            Ok(0)
        }
        Task::Selftest => Ok(loaded_worker::selftest::run(floor)),
    };
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("loaded: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &run::Options) -> Result<(), Error> {
    let loaded = run::check(options)?;
    for note in &loaded.notes {
        println!("note: {note}");
    }
    print!("{}", loaded.plan);
    Ok(())
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
