//! Files below /proc/net.

use std::io;

/// The whole text of a file; empty if this kernel has no such file, as without IPv6.
///
/// # Errors
/// If it cannot be read, as for want of a file descriptor: that is no word that it is empty.
pub(crate) fn text(path: &str) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        Ok(text) => Ok(text),
    }
}
