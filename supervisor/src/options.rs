//! What the command line asks of an instance.

use crate::Error;
use loaded_config::{self as config, Overrides};
use loaded_control::default_path;
use loaded_sandbox::SandboxRequirement;
use std::path::{PathBuf, absolute};
use std::time::Duration;

/// What the command line asks of an instance.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration files; empty: the usual places are searched.
    pub config: Vec<PathBuf>,
    /// Settings that override the configuration files.
    pub overrides: Overrides,
    /// This process is the daemon, started by a starter that waits for its word.
    pub detached: bool,
    /// A running supervisor has started this process as its successor ([`crate::SUCCESSOR`]).
    pub successor: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Path of the control socket; `None`: the default path.
    pub control: Option<PathBuf>,
    /// How long a start waits for the host to be ready.
    pub wait: Duration,
    /// Whether to run on a kernel that lacks a layer of the sandbox.
    pub sandbox: SandboxRequirement,
}

impl Options {
    /// Loads the configuration, from the usual places if no file is named.
    ///
    /// # Errors
    /// The mistakes, each with file, line and column; or that there is no file.
    pub(crate) fn load(&self) -> Result<config::LoadedPlan, Error> {
        Ok(config::load(&self.files()?, &self.overrides)?)
    }

    /// The same, of these files, with what was changed at run time.
    ///
    /// # Errors
    /// The mistakes; what the files say now contradicts what was changed.
    pub(crate) fn load_amended(
        &self,
        files: &[PathBuf],
        amendments: &[config::Amendment],
    ) -> Result<config::LoadedPlan, Error> {
        Ok(config::load_amended(files, &self.overrides, amendments)?)
    }

    /// Path of the control socket.
    pub(crate) fn control_path(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(default_path)
    }

    /// The same with absolute paths, which hold when the working directory changes.
    pub(crate) fn with_absolute_paths(&self) -> Result<Self, Error> {
        let fail =
            |source| Error::Start { act: "find the directory that a path on the command line begins in", source };
        let config = self.files()?.iter().map(absolute).collect::<Result<_, _>>().map_err(fail)?;
        let pid_file = self.pid_file.as_ref().map(absolute).transpose().map_err(fail)?;
        let control = self.control.as_ref().map(absolute).transpose().map_err(fail)?;
        Ok(Self { config, pid_file, control, ..self.clone() })
    }

    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        match self.config.as_slice() {
            [] => Ok(vec![config::find()?]),
            named => Ok(named.to_vec()),
        }
    }
}
