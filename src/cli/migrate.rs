//! The command line of `loaded migrate`.

use clap::{Args, ValueEnum};
use loaded_migrate::Format;
use std::net::IpAddr;
use std::path::PathBuf;

/// The arguments of `loaded migrate`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(after_help = AFTER)]
pub(crate) struct MigrateLine {
    /// keepalived.conf, what ipvsadm -Sn printed, nginx.conf, or the original's loaded.config and loaded.config6; - is stdin
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Whose configuration it is [default: its text tells]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) from: Option<FormatName>,
    /// The address behind "listen 80" in nginx, which takes every address of its host; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) vip: Vec<IpAddr>,
    /// The original was started with -f
    #[arg(long)]
    pub(crate) failover: bool,
}

const AFTER: &str = "\
What has no place in loaded.toml is named with its file and line, in a comment there and on stderr.

  loaded migrate /etc/keepalived/keepalived.conf > loaded.toml
  ipvsadm -Sn | loaded migrate - > loaded.toml
  loaded migrate --vip 192.0.2.100 /etc/nginx/nginx.conf > loaded.toml";

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// keepalived.conf, its virtual servers.
    Keepalived,
    /// The output of ipvsadm -Sn.
    Ipvsadm,
    /// nginx.conf, its block "stream".
    Nginx,
    /// loaded.config and loaded.config6.
    Classic,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Keepalived => Self::Keepalived,
            FormatName::Ipvsadm => Self::Ipvsadm,
            FormatName::Nginx => Self::Nginx,
            FormatName::Classic => Self::Classic,
        }
    }
}
