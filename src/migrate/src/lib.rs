//! From other balancers' configurations to `loaded.toml`. Knows texts; never a host, an instance or the file system.
//!
//! ```text
//!  guess       tells a format by its text
//!  tree        statements and blocks, which two of the formats consist of
//!  keepalived  keepalived.conf: virtual_server with its groups, real servers and checks
//!  ipvsadm     what `ipvsadm -Sn` prints
//!  ipvs        the algorithms of the kernel, which those two set up
//!  nginx       the block `stream` of nginx.conf
//!  classic     loaded.config and loaded.config6, read by `loaded-config` itself
//!  model       what all of them become, and notes on what is left out
//!  settle      takes out what `loaded` would refuse, until it accepts the rest
//!  write       the model as TOML with its notes as comments
//! ```
//!
//! Nothing is lost in silence: what has no place in `loaded.toml` becomes a note with its file, line and column. What would
//! change whom or what a service serves (TLS, access rules, firewall marks) takes the service with it. Files that the
//! text includes are named, not opened.
//!
//! The formats are read by code of our own. For nginx there are crates (nginx-config, nginx-discovery): those that are kept
//! read the block `http` and know no `stream`; for keepalived.conf and ipvsadm there is none.
#![forbid(unsafe_code)]

mod classic;
mod guess;
mod ipvs;
mod ipvsadm;
mod keepalived;
mod model;
mod nginx;
mod position;
mod settle;
mod tree;
mod write;

pub use guess::guess;
pub use position::{Position, Unreadable};

use loaded_config::Source;
use model::Model;
use std::net::IpAddr;

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// keepalived.conf.
    Keepalived,
    /// The output of `ipvsadm -Sn`.
    Ipvsadm,
    /// nginx.conf, of which the block `stream` is read; or what stands in that block.
    Nginx,
    /// loaded.config and loaded.config6 of stealth/loaded.
    Classic,
}

/// What the text does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The addresses behind `listen 80` in nginx, which listens on every address of its host.
    pub vips: Vec<IpAddr>,
    /// The original was started with `-f`.
    pub failover: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// A `loaded.toml` with comments. `loaded` accepts it if `services` is not 0.
    pub toml: String,
    /// How many services it has.
    pub services: usize,
    /// What could not be carried over, one line each: `file:line:column: what: why`. The comments of `toml` say the same.
    pub lost: Vec<String>,
}

/// Reads the texts and writes `loaded.toml`. Only [`Format::Classic`] takes several, which are one configuration there.
///
/// # Errors
/// The text is not of this format, or there is not exactly one: the first mistake, with its position.
pub fn migrate(sources: &[Source], format: Format, options: &Options) -> Result<Migrated, Unreadable> {
    let one = || match sources {
        [one] => Ok(one),
        _ => Err(Unreadable::plain(format!("{} has one file; name it alone", format.name()))),
    };
    let mut model = match format {
        Format::Keepalived => keepalived::read(one()?)?,
        Format::Ipvsadm => ipvsadm::read(one()?)?,
        Format::Nginx => nginx::read(one()?, &options.vips)?,
        Format::Classic => classic::read(sources, options.failover)?,
    };
    let files: Vec<_> = sources.iter().map(|source| source.path().display().to_string()).collect();
    model.origin = format!("{} ({})", files.join(", "), format.name());
    Ok(finished(settle::settle(model)))
}

fn finished(model: Model) -> Migrated {
    let lost = model.all_notes().filter(|note| note.lost).map(model::Note::line).collect();
    Migrated { toml: write::page(&model).text, services: model.services.len(), lost }
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Keepalived, Self::Ipvsadm, Self::Nginx, Self::Classic];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keepalived => "keepalived",
            Self::Ipvsadm => "ipvsadm",
            Self::Nginx => "nginx",
            Self::Classic => "classic",
        }
    }
}
