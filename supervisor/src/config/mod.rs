//! Configuration: from files to a [`Plan`], or to an error that names file, line and column.
//!
//! A file whose name ends in `.toml` is TOML (`scripts/loaded.toml` shows every key); every other file is the
//! classic format, which is a shell script too (`scripts/loaded.config`). Several classic files make one plan;
//! a TOML file stands alone. Text becomes a draft (`classic`, `toml`), and the draft becomes the plan (`check`).

mod check;
mod classic;
mod draft;
mod file;
mod location;
mod near;
mod toml;
mod value;

pub use file::{MAX_FILE_BYTES, PLACES, find};
pub use location::{ConfigError, Location, Source};

use crate::plan::Plan;
use std::path::PathBuf;

/// Default account of the workers.
pub const USER: &str = "nobody";
/// Default number of core 0's queue: queue n is core n's, as in the original.
pub const QUEUE_BASE: u16 = 0;
/// Default length of a kernel queue in packets: a burst of 16 ms at a million packets a second. Each waiting
/// packet holds an skb of up to 64 KiB, so this is at most 1 GiB, and about 40 MB for packets of 1500 bytes.
pub const QUEUE_LEN: u32 = 16_384;
/// Default flows of one worker: 20 MiB at 80 bytes each, taken at start.
pub const FLOWS: u32 = 262_144;
/// Default clients of one worker: as much again.
pub const CLIENTS: u32 = 262_144;
/// Default seed of the maglev strategy: "loaded" in ASCII. A constant, so that several balancers agree unasked.
pub const MAGLEV_SEED: u64 = 0x6c6f_6164_6564;
/// Default seconds after a client's last packet until it is forgotten.
pub const AFFINITY_TIMEOUT: u32 = 3600;
/// Default leading bits that make an IPv4 client: the whole address.
pub const PREFIX4: u8 = 32;
/// Default leading bits that make an IPv6 client in the classic format: the whole address, as in the original.
pub const CLASSIC_PREFIX6: u8 = 128;
/// Default leading bits that make an IPv6 client in TOML: one network, whose hosts change their addresses often.
pub const PREFIX6: u8 = 64;

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

/// What the command line says beside the files; it wins over them.
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
    /// `-f`: not part of this version, refused.
    pub failover: bool,
}

/// A plan, and what the operator should know about the files beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What to serve.
    pub plan: Plan,
    /// One line each, `file:line:column: text`: keys that have no effect now.
    pub notes: Vec<String>,
}

/// Reads `paths`, or the file that [`find`] finds if there are none, and makes the plan. Changes nothing.
///
/// # Errors
/// No file, an unfit or unreadable one, an option out of its range, or the first flaw of the texts.
pub fn load(paths: &[PathBuf], overrides: &Overrides) -> Result<Loaded, ConfigError> {
    check_options(overrides)?;
    let sources = match paths {
        [] => vec![file::read(&find()?)?],
        paths => paths.iter().map(|path| file::read(path)).collect::<Result<_, _>>()?,
    };
    parse(&sources, overrides)
}

/// Makes the plan from texts at hand: [`load`] without the file system.
///
/// # Errors
/// An option out of its range, or the first flaw of the texts.
pub fn parse(sources: &[Source], overrides: &Overrides) -> Result<Loaded, ConfigError> {
    check_options(overrides)?;
    let resolve = |flaw: location::Flaw| flaw.resolve(sources);
    let (draft, notes) = match sources {
        [only] if only.is_toml() => (toml::draft(only.text()).map_err(resolve)?, Vec::new()),
        several => match several.iter().find(|source| source.is_toml()) {
            Some(toml) => return Err(not_alone(toml)),
            None => classic::draft(several).map_err(resolve)?,
        },
    };
    let plan = check::plan(draft, overrides).map_err(resolve)?;
    Ok(Loaded { plan, notes: notes.into_iter().map(|note| note.resolve(sources).to_string()).collect() })
}

fn check_options(overrides: &Overrides) -> Result<(), ConfigError> {
    let wrong = |option: &'static str| move |message: String| ConfigError::Option { option, message };
    if overrides.failover {
        return Err(wrong("-f")(
            "health checks and failover are not part of this version; leave the option out".into(),
        ));
    }
    if let Some(user) = &overrides.user {
        value::user(user).map_err(wrong("-U"))?;
    }
    if let Some(len) = overrides.queue_len.filter(|len| !value::QUEUE_LEN.contains(len)) {
        value::number(&len.to_string(), value::QUEUE_LEN).map_err(wrong("-Q"))?;
    }
    Ok(())
}

fn not_alone(toml: &Source) -> ConfigError {
    let reason = "a TOML file is a whole configuration; name it alone, without another -c".to_owned();
    ConfigError::Unfit { path: toml.path().to_owned(), reason }
}
