//! Configuration: from files to a [`Plan`], or to an error that names file, line and column. Knows what is configured; never
//! knows what runs or what the host is.
//!
//! A file whose name ends in `.toml` is TOML (`scripts/loaded.toml` shows every key); every other file is the
//! classic format, which is a shell script too (`scripts/loaded.config`). Several classic files make one plan;
//! a TOML file stands alone, but for files that it includes. Text becomes a draft (`classic`, `toml`), and the draft becomes
//! the plan (`check`). Between the two lies what an operator has changed at run time (`amendment`); `saved` writes that into the file.

#![forbid(unsafe_code)]

mod address;
mod amendment;
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
mod saved;
mod second_balancer;
mod shared;
mod toml;
mod value;

pub use amendment::{Act, Amended, Amendment, Order};
pub use defaults::*;
pub use error::ConfigError;
pub use file::{MAX_FILE_BYTES, MAX_INCLUDED, PLACES, find};
pub use location::{Location, Source};
pub use mistake::Mistake;
pub use saved::{SaveError, Saved, marked, saved};

use crate::amendment::{Applied, Commands};
use crate::draft::Draft;
use crate::location::Flaw;
use crate::mistake::Mistakes;
use crate::plan::{Plan, QUEUE_LENS};
use std::path::{Path, PathBuf};

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
    /// `--log-level`: the least grave lines of the log that are written.
    pub log_level: Option<plan::LogLevel>,
    /// `--metrics`: where metrics and the status page are served.
    pub metrics: Option<plan::MetricsAddress>,
    /// `-f`: services without a check get one: an echo request (TOML), or what the classic keys of failover say.
    pub failover: bool,
}

/// A plan, what it was made of, and notes for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPlan {
    /// What to serve.
    pub plan: Plan,
    /// One line each, `file:line:column: text`: keys that have no effect, VIPs that share backends.
    pub notes: Vec<String>,
    /// The files that were read.
    pub sources: Vec<Source>,
    /// What was changed at run time and still holds.
    pub amendments: Vec<Amendment>,
    /// What was changed at run time and does not hold any more, one line each, with the reason.
    pub forgotten: Vec<String>,
}

impl LoadedPlan {
    /// The names of the files that were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(Source::path)
    }
}

/// Reads `paths`, or the file that [`find`] finds if empty, and makes the plan. Changes nothing.
///
/// # Errors
/// No file, an unsuitable or unreadable one, an option out of range, or the mistakes in the texts.
pub fn load(paths: &[PathBuf], overrides: &Overrides) -> Result<LoadedPlan, ConfigError> {
    load_amended(paths, overrides, &[])
}

/// [`load`], and what was changed at run time laid over it.
///
/// # Errors
/// Those of [`load`]; files and amendments contradict each other.
pub fn load_amended(
    paths: &[PathBuf],
    overrides: &Overrides,
    amendments: &[Amendment],
) -> Result<LoadedPlan, ConfigError> {
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
    let mut loaded = parse_amended(&sources, overrides, amendments)?;
    loaded.notes.extend(notes.into_iter().map(|note| Mistake::new(note, &sources).to_string()));
    Ok(loaded)
}

/// Makes the plan from texts in memory: [`load`] without the file system. What a file includes is in the sources after it.
///
/// # Errors
/// An option out of range, or the mistakes in the texts.
pub fn parse(sources: &[Source], overrides: &Overrides) -> Result<LoadedPlan, ConfigError> {
    parse_amended(sources, overrides, &[])
}

/// [`parse`], and what was changed at run time laid over it.
///
/// # Errors
/// Those of [`parse`]; texts and amendments contradict each other.
pub fn parse_amended(
    sources: &[Source],
    overrides: &Overrides,
    amendments: &[Amendment],
) -> Result<LoadedPlan, ConfigError> {
    check_options(overrides)?;
    let mistakes = Mistakes::default();
    let draft = draft(sources, overrides, &mistakes)?;
    planned(draft, sources, overrides, amendments, mistakes)
}

/// One more change at run time: the plan of texts that hold, with amendments that hold and what is ordered now.
///
/// # Errors
/// The mistake in the order, or what it would make of the plan.
pub fn amend(
    sources: &[Source],
    overrides: &Overrides,
    amendments: &[Amendment],
    order: &Order,
) -> Result<LoadedPlan, ConfigError> {
    let mistakes = Mistakes::default();
    let draft = draft(sources, overrides, &mistakes)?;
    let Some((of_files, _)) = &draft else { return planned(draft, sources, overrides, amendments, mistakes) };
    let (command, words) = amendment::command_of(order, sources.len());
    match amendment::ordered(of_files, amendments, order, words) {
        Ok(amendments) => planned(draft, sources, overrides, &amendments, mistakes),
        Err(flaw) => {
            mistakes.add(flaw);
            Err(ConfigError::Invalid { mistakes: mistakes.told(&[sources, &[command]].concat()) })
        }
    }
}

/// What the texts say, with notes; `None` if one cannot be read at all.
fn draft(
    sources: &[Source],
    overrides: &Overrides,
    mistakes: &Mistakes,
) -> Result<Option<(Draft, Vec<Flaw>)>, ConfigError> {
    Ok(match sources {
        [main, included @ ..] if main.is_toml() && included.iter().all(Source::is_included) => {
            toml::draft(main.text(), included, mistakes).map(|draft| (draft, Vec::new()))
        }
        several => match several.iter().find(|source| source.is_toml()) {
            Some(toml) => return Err(not_alone(toml)),
            None => Some(classic::draft(several, overrides.failover, mistakes)),
        },
    })
}

/// The plan of a draft with amendments.
fn planned(
    draft: Option<(Draft, Vec<Flaw>)>,
    sources: &[Source],
    overrides: &Overrides,
    amendments: &[Amendment],
    mistakes: Mistakes,
) -> Result<LoadedPlan, ConfigError> {
    let commands = Commands::of(amendments, sources.len());
    let made = draft.map(|(mut draft, notes)| {
        let applied = amendment::apply(&mut draft, amendments, &commands);
        let (plan, more) = check::plan(draft, overrides, &mistakes);
        (plan, [notes, more].concat(), applied)
    });
    let texts = [sources, &[commands.source]].concat();
    let mistakes = mistakes.told(&texts);
    if !mistakes.is_empty() {
        return Err(ConfigError::Invalid { mistakes });
    }
    let (plan, notes, applied) = made.unwrap_or_else(|| (Plan::empty(), Vec::new(), Applied::default()));
    let notes = notes.into_iter().map(|note| Mistake::new(note, &texts).to_string()).collect();
    let Applied { kept, forgotten } = applied;
    Ok(LoadedPlan { plan, notes, sources: sources.to_vec(), amendments: kept, forgotten })
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
