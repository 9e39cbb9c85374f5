//! Configuration: from files to a [`Plan`], or to an error that names file, line and column. Knows what is configured; never
//! knows what runs or what the host is.
//!
//! A file whose name ends in `.toml` is TOML (`scripts/loaded.toml` shows every key); every other file is the
//! classic format, which is a shell script too (`scripts/loaded.config`). Several classic files make one plan;
//! a TOML file stands alone, but for files that it includes. Text becomes a draft (`classic`, `toml`), and the draft becomes
//! the plan (`check`).

#![forbid(unsafe_code)]

mod address;
mod check;
mod check_kind;
mod classic;
mod defaults;
mod draft;
pub mod duration;
mod error;
mod file;
mod invisible;
mod location;
mod mistake;
mod near;
pub mod network;
pub mod plan;
mod policy;
mod probe;
mod shared;
mod toml;
mod value;

pub use defaults::*;
pub use error::ConfigError;
pub use file::{MAX_FILE_BYTES, MAX_INCLUDED, PLACES, find};
pub use location::{Location, Source};
pub use mistake::Mistake;

use crate::mistake::Mistakes;
use crate::plan::{Plan, QUEUE_LENS};
use std::path::PathBuf;

/// Which address families to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// Whatever the files name.
    #[default]
    Both,
    /// IPv4 only (`-4`).
    V4,
    /// IPv6 only (`-6`).
    V6,
}

/// Command line options; they override the files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// `-4` and `-6`.
    pub families: Families,
    /// `-Q`: packets that may wait in one kernel queue.
    pub queue_len: Option<u32>,
    /// `--queue-base`: the queue of core 0.
    pub queue_base: Option<u16>,
    /// `-U`: the account of the workers.
    pub user: Option<String>,
    /// `--fast`: whether the kernel sends packets of known flows on.
    pub fast: Option<plan::Fast>,
    /// `--metrics`: where metrics and the status page are served.
    pub metrics: Option<plan::MetricsAddress>,
    /// `-f`: services without a check get one: an echo request (TOML), or what the classic keys of failover say.
    pub failover: bool,
}

/// A plan, and notes about the files for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What to serve.
    pub plan: Plan,
    /// One line each, `file:line:column: text`: keys that have no effect, VIPs that share backends.
    pub notes: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads `paths`, or the file that [`find`] finds if empty, and makes the plan. Changes nothing.
///
/// # Errors
/// No file, an unsuitable or unreadable one, an option out of range, or the mistakes in the texts.
pub fn load(paths: &[PathBuf], overrides: &Overrides) -> Result<Loaded, ConfigError> {
    check_options(overrides)?;
    let sources = match paths {
        [] => vec![file::read(&find()?)?],
        paths => paths.iter().map(|path| file::read(path)).collect::<Result<_, _>>()?,
    };
    let (included, notes) = match &*sources {
        [main] if main.is_toml() => file::included(main)?,
        _ => (Vec::new(), Vec::new()),
    };
    let sources = [sources, included].concat();
    let mut loaded = parse(&sources, overrides)?;
    loaded.notes.extend(notes.into_iter().map(|note| Mistake::new(note, &sources).to_string()));
    Ok(loaded)
}

/// Makes the plan from texts in memory: [`load`] without the file system. What a file includes is in the sources after it.
///
/// # Errors
/// An option out of range, or the mistakes in the texts.
pub fn parse(sources: &[Source], overrides: &Overrides) -> Result<Loaded, ConfigError> {
    check_options(overrides)?;
    let mistakes = Mistakes::default();
    let draft = match sources {
        [main, included @ ..] if main.is_toml() && included.iter().all(Source::is_included) => {
            toml::draft(main.text(), included, &mistakes).map(|draft| (draft, Vec::new()))
        }
        several => match several.iter().find(|source| source.is_toml()) {
            Some(toml) => return Err(not_alone(toml)),
            None => Some(classic::draft(several, overrides.failover, &mistakes)),
        },
    };
    let made = draft.map(|(draft, notes)| {
        let (plan, more) = check::plan(draft, overrides, &mistakes);
        (plan, [notes, more].concat())
    });
    let mistakes = mistakes.told(sources);
    if !mistakes.is_empty() {
        return Err(ConfigError::Invalid { mistakes });
    }
    let (plan, notes) = made.unwrap_or_else(|| (Plan::empty(), Vec::new()));
    let notes = notes.into_iter().map(|note| Mistake::new(note, sources).to_string()).collect();
    Ok(Loaded { plan, notes, files: sources.iter().map(|source| source.path().to_owned()).collect() })
}

fn check_options(overrides: &Overrides) -> Result<(), ConfigError> {
    let wrong = |option: &'static str| move |message: String| ConfigError::Option { option, message };
    if let Some(user) = &overrides.user {
        value::user(user).map_err(wrong("-U"))?;
    }
    if let Some(len) = overrides.queue_len.filter(|len| !QUEUE_LENS.contains(len)) {
        value::number(&len.to_string(), QUEUE_LENS).map_err(wrong("-Q"))?;
    }
    Ok(())
}

fn not_alone(toml: &Source) -> ConfigError {
    let reason = "a TOML file is a whole configuration; name it alone, without another -c".to_owned();
    ConfigError::Unfit { path: toml.path().to_owned(), reason }
}
