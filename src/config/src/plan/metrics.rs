//! Where metrics and the status page are served.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket: sun_path less the final NUL (unix(7)).
const MAX_PATH: usize = 107;

/// Where metrics and the status page are served by HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricsAddress {
    /// At this address and port, which is never 0.
    Tcp(SocketAddr),
    /// At a Unix socket of this absolute path.
    Unix(PathBuf),
}

impl MetricsAddress {
    /// Reads one.
    ///
    /// # Errors
    /// What to write instead.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.len() <= MAX_PATH && Path::new(path).file_name().is_some() && !path.ends_with('/');
            return match path.starts_with('/') && fits && !path.contains(char::is_control) {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!(
                    "{text:?} is no Unix socket; write \"unix:\" and its absolute path of at most {MAX_PATH} bytes, such as \
                     \"unix:/run/loaded/metrics.sock\""
                )),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self::Tcp(address)),
            _ => Err(format!(
                "{text:?} is no address with a port; write \"127.0.0.1:9273\", \"[::1]:9273\" or \
                 \"unix:/run/loaded/metrics.sock\""
            )),
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_or_refused_with_what_to_write() {
        for good in ["127.0.0.1:9273", "[::1]:9273", "0.0.0.0:80", "unix:/run/loaded/metrics.sock"] {
            assert_eq!(MetricsAddress::read(good).map(|address| address.to_string()), Ok(good.to_owned()));
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH));
        for bad in [
            "",
            "9273",
            ":9273",
            "localhost:9273",
            "127.0.0.1",
            "::1:9273",
            "127.0.0.1:0",
            "unix:",
            "unix:a",
            "unix:/",
            "unix:/run/",
            "unix:/run/..",
            "unix:/a\nb",
            &long,
        ] {
            assert!(MetricsAddress::read(bad).is_err_and(|text| text.contains("write ")), "{bad}");
        }
    }
}
