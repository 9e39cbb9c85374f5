//! Finds and opens configuration files. The supervisor reads them with full rights, so the file itself is examined
//! before its contents.

use super::error::ConfigError;
use super::location::{Flaw, Source};
use super::toml::include::patterns_of;
use glob::{GlobError, MatchOptions};
use nix::fcntl::OFlag;
use nix::unistd::{getegid, geteuid};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a configuration is looked for when none is named: the original's two names in the current
/// directory, then the system's place.
pub const PLACES: [&str; 4] = ["loaded.config", "loaded.conf", "/etc/loaded/loaded.toml", "/etc/loaded/loaded.config"];

/// A configuration larger than this many bytes is a mistake: 4096 backends take about 100 KiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Files that one may include.
pub const MAX_INCLUDED: usize = 256;

/// The permission bits that let the group, and anybody, write.
const GROUP_WRITABLE: u32 = 0o020;
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
    if bytes.contains(&0) {
        let reason = "it has zero bytes, as UTF-16 has, and no text has; save it as UTF-8".to_owned();
        return Err(ConfigError::Unfit { path: path.to_owned(), reason });
    }
    // A comment in another encoding must not stop a classic file, which is a shell script; the mark that
    // replaces such a byte is refused in every value, and by TOML's rules outside of comments and strings.
    Ok(Source::new(path, String::from_utf8_lossy(&bytes)))
}

/// Reads the files that a TOML file includes, each once, in the order of its patterns and by name. Returns notes about patterns
/// that match nothing too.
pub(super) fn included(main: &Source) -> Result<(Vec<Source>, Vec<Flaw>), ConfigError> {
    let mut paths = Vec::new();
    let mut notes = Vec::new();
    for pattern in patterns_of(main.text()) {
        let found = matching(main.path(), &pattern.value)?;
        if found.is_empty() {
            notes.push(pattern.flaw(format!("no file matches {:?}; nothing is included", pattern.value)));
        }
        for path in found.into_iter().filter(|path| path != main.path()) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    if paths.len() > MAX_INCLUDED {
        let reason = format!("it includes {} files; {MAX_INCLUDED} are the most", paths.len());
        return Err(ConfigError::Unfit { path: main.path().to_owned(), reason });
    }
    let sources = paths.iter().map(|path| read(path).map(Source::included)).collect::<Result<_, _>>()?;
    Ok((sources, notes))
}

/// The files that match a pattern, relative to the directory of `main`. As in a shell, `*` does not match a leading dot: such
/// names are for files that are still being written.
fn matching(main: &Path, pattern: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = main.parent().unwrap_or(Path::new(""));
    if glob::Pattern::escape(pattern) == pattern {
        return Ok(vec![directory.join(pattern)]);
    }
    let whole = match Path::new(pattern).is_absolute() {
        true => PathBuf::from(pattern),
        false => Path::new(&glob::Pattern::escape(&directory.to_string_lossy())).join(pattern),
    };
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    // A malformed pattern is reported, with its place, when the text is read.
    let Ok(found) = glob::glob_with(&whole.to_string_lossy(), options) else { return Ok(Vec::new()) };
    let unreadable = |error: GlobError| ConfigError::Unreadable { path: error.path().to_owned(), source: error.into() };
    found.map(|path| path.map_err(unreadable)).collect()
}

fn unfit(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let reader = (geteuid().as_raw(), getegid().as_raw());
    Ok(if !metadata.is_file() {
        Some("it is not a regular file".to_owned())
    } else if metadata.len() > MAX_FILE_BYTES {
        Some(too_large())
    } else {
        other_writer(metadata.mode(), (metadata.uid(), metadata.gid()), reader)
    })
}

/// Who may write a file besides root and its reader: whoever may decides what a process of root does.
fn other_writer(mode: u32, (owner, group): (u32, u32), (user, own_group): (u32, u32)) -> Option<String> {
    if owner != 0 && owner != user {
        Some(format!("user {owner}, whose file it is, may write to it; chown root takes that right away"))
    } else if mode & WORLD_WRITABLE != 0 {
        Some("anybody may write to it; chmod o-w takes that right away".to_owned())
    } else if mode & GROUP_WRITABLE != 0 && group != 0 && group != own_group {
        Some(format!("group {group} may write to it; chmod g-w takes that right away"))
    } else {
        None
    }
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
    fn a_file_that_another_user_may_write_is_refused() {
        let scratch = Scratch::new("mode");
        assert!(message(&scratch.file("open", b"", 0o602)).contains("refused: anybody may write to it; chmod o-w"));
        assert!(read(&scratch.file("shut", b"", 0o644)).is_ok());
        let (root, other, nobody) = ((0, 0), (1000, 1000), (65534, 65534));
        for (mode, owner, reader, who) in [
            (0o644, root, root, None),
            (0o644, root, other, None),
            (0o664, root, root, None),
            (0o664, other, other, None),
            (0o600, other, root, Some("user 1000")),
            (0o400, nobody, other, Some("user 65534")),
            (0o664, (0, 50), root, Some("group 50")),
            (0o664, (1000, 50), other, Some("group 50")),
            (0o646, root, root, Some("anybody")),
        ] {
            let told = other_writer(mode, owner, reader);
            assert_eq!(told.is_some(), who.is_some(), "{mode:o} {owner:?} {reader:?}: {told:?}");
            assert!(told.unwrap_or_default().starts_with(who.unwrap_or_default()), "{mode:o} {owner:?} {reader:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let scratch = Scratch::new("text");
        let utf16: Vec<u8> = "VIP4=192.0.2.1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(message(&scratch.file("wide", &utf16, 0o600)).contains("refused: it has zero bytes, as UTF-16 has"));
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
