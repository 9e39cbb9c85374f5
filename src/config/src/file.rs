//! Finds and opens configuration files. The supervisor reads them with full rights, so the file itself is examined
//! before its contents.

use super::location::{ConfigError, Source};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a configuration is looked for when none is named: the original's two names in the current
/// directory, then the system's place.
pub const PLACES: [&str; 4] = ["loaded.config", "loaded.conf", "/etc/loaded/loaded.toml", "/etc/loaded/loaded.config"];

/// A configuration larger than this many bytes is a mistake: 4096 backends take about 100 KiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The permission bit that lets anybody write.
const WORLD_WRITABLE: u32 = 0o002;

/// The first file of [`PLACES`] that exists, readable or not.
///
/// # Errors
/// [`ConfigError::NotFound`] lists what was tried.
pub fn find() -> Result<PathBuf, ConfigError> {
    first_existing(&PLACES.map(PathBuf::from))
}

fn first_existing(places: &[PathBuf]) -> Result<PathBuf, ConfigError> {
    let exists = |path: &&PathBuf| path.symlink_metadata().is_ok();
    places.iter().find(exists).cloned().ok_or_else(|| ConfigError::NotFound { tried: places.to_vec() })
}

/// Opens, examines and reads one file.
pub(super) fn read(path: &Path) -> Result<Source, ConfigError> {
    let unreadable = |source: io::Error| ConfigError::Unreadable { path: path.to_owned(), source };
    // O_NONBLOCK: opening a FIFO for reading waits for a writer otherwise, see fifo(7).
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(unreadable)?;
    // The open file is examined, not the name, which could mean another file by now.
    if let Some(reason) = unfit(&file).map_err(unreadable)? {
        return Err(ConfigError::Unfit { path: path.to_owned(), reason });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::Unfit { path: path.to_owned(), reason: too_large() });
    }
    // A comment in another encoding must not stop a classic file, which is a shell script; the mark that
    // replaces such a byte is refused in every value, and by TOML's rules outside of comments and strings.
    Ok(Source::new(path, String::from_utf8_lossy(&bytes)))
}

fn unfit(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    Ok(if !metadata.is_file() {
        Some("it is not a regular file".to_owned())
    } else if metadata.mode() & WORLD_WRITABLE != 0 {
        Some("anybody may write to it; chmod o-w takes that right away".to_owned())
    } else if metadata.len() > MAX_FILE_BYTES {
        Some(too_large())
    } else {
        None
    })
}

fn too_large() -> String {
    format!("it is larger than {MAX_FILE_BYTES} bytes")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    /// A directory that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("loaded-config-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn message(path: &Path) -> String {
        read(path).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_file_is_named() {
        let path = Path::new("/nonexistent/loaded.config");
        let expected = "/nonexistent/loaded.config: cannot read the configuration: No such file or directory";
        assert!(message(path).starts_with(expected), "{}", message(path));
    }

    #[test]
    fn a_world_writable_file_is_refused() {
        let scratch = Scratch::new("writable");
        assert!(message(&scratch.file("a", b"", 0o646)).contains("chmod o-w"));
        assert!(message(&scratch.file("b", b"", 0o602)).contains("chmod o-w"));
        assert!(read(&scratch.file("c", b"", 0o664)).is_ok());
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let scratch = Scratch::new("kinds");
        assert!(message(&scratch.0).contains("not a regular file"));
        let fifo = scratch.0.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(message(&fifo).contains("not a regular file"));
    }

    #[test]
    fn the_size_is_bounded() {
        let scratch = Scratch::new("size");
        let most = usize::try_from(MAX_FILE_BYTES).unwrap();
        assert!(read(&scratch.file("fits", &vec![b'\n'; most], 0o600)).is_ok());
        assert!(message(&scratch.file("not", &vec![b'\n'; most + 1], 0o600)).contains("larger than 1048576 bytes"));
        assert!(message(Path::new("/dev/zero")).contains("not a regular file"));
    }

    #[test]
    fn the_first_existing_place_wins_and_none_is_told() {
        let scratch = Scratch::new("places");
        let second = scratch.file("second", b"", 0o600);
        let places = [scratch.0.join("first"), second.clone(), scratch.file("third", b"", 0o600)];
        assert_eq!(first_existing(&places).unwrap(), second);
        let error = first_existing(&PLACES.map(|p| scratch.0.join(p.trim_start_matches('/')))).unwrap_err().to_string();
        assert!(error.contains("loaded.conf, ") && error.ends_with("name one with -c FILE"), "{error}");
    }
}
