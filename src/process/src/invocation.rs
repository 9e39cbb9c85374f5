//! How this process was started, so that another binary can be started in the same way.

use crate::Error;
use std::ffi::OsString;
use std::path::PathBuf;

/// Program, arguments and working directory of this process.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Path of the binary.
    pub program: PathBuf,
    /// Without the name of the program.
    pub arguments: Vec<OsString>,
    /// The working directory.
    pub directory: PathBuf,
}

impl Invocation {
    /// Of this process, without the hidden argument `hidden`. Call it before the working directory changes.
    ///
    /// # Errors
    /// If the kernel does not say where the binary or the working directory is.
    pub fn current(hidden: &str) -> Result<Self, Error> {
        let fail = |act| move |source| Error::Start { act, source };
        Ok(Self {
            program: std::env::current_exe().map_err(fail("find the path of this binary"))?,
            arguments: std::env::args_os().skip(1).filter(|word| word != hidden).collect(),
            directory: std::env::current_dir().map_err(fail("find the working directory"))?,
        })
    }
}
