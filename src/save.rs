//! `loaded config show --save`: writes what was changed at run time into the instance's configuration file. The instance says what
//! the file has to hold, for it knows what it has read; this process, with the operator's rights, writes it: the supervisor has
//! given up the right to change a file's owner, and its unit may not write to /etc.

use crate::AnyError;
use loaded_control::{self as control, FileChange, Reply, Request};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Saves, and lets the instance read its files again. Returns what was done.
///
/// # Errors
/// There is no place for a change in the file, or the file was changed since the instance has read it. Nothing is written then.
pub(crate) fn save(socket: Option<&Path>) -> Result<String, AnyError> {
    let Reply::Unsaved { lines, file } = control::ask(socket, &Request::Unsaved)? else {
        return Err(crate::UNASKED.into());
    };
    let Some(file) = file else { return Ok("nothing to save: the files say what is in force\n".to_owned()) };
    replace(&file)?;
    let reload = match control::ask(socket, &Request::Reload) {
        Ok(Reply::Done { lines }) => lines,
        Ok(_) => return Err(crate::UNASKED.into()),
        Err(error) => return Err(format!("{} is saved, but: {error}", file.path.display()).into()),
    };
    let saved = lines.iter().map(|line| format!("saved: {line}"));
    let all: Vec<_> = saved.chain([format!("file: {}", file.path.display())]).chain(reload).collect();
    Ok(crate::joined(&all))
}

/// Puts the new text in the place of the old one, in one step: whoever reads the file meanwhile reads one or the other. Owner,
/// group and mode stay; a symbolic link still leads there.
fn replace(change: &FileChange) -> Result<(), String> {
    let path = fs::canonicalize(&change.path).map_err(|error| told(&change.path, "find it", &error))?;
    let old = unchanged(&path, change)?;
    let metadata = old.metadata().map_err(|error| told(&path, "look at it", &error))?;
    if metadata.nlink() > 1 {
        return Err(format!(
            "{} has {} names (hard links), of which one alone would be changed; nothing was written",
            path.display(),
            metadata.nlink()
        ));
    }
    let beside = name_beside(&path);
    let written = write_beside(&beside, &metadata, &change.after).and_then(|()| {
        // Again, at the last moment.
        unchanged(&path, change).map_err(io::Error::other)?;
        fs::rename(&beside, &path)?;
        // So that the name outlives a loss of power too.
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        told(&path, "write it", &error)
    })
}

/// The file, if it still holds what the instance has read.
fn unchanged(path: &Path, change: &FileChange) -> Result<File, String> {
    let mut file = File::open(path).map_err(|error| told(path, "open it", &error))?;
    let mut now = Vec::new();
    let most = change.before.len() as u64 + 1;
    (&mut file).take(most).read_to_end(&mut now).map_err(|error| told(path, "read it", &error))?;
    match now == change.before.as_bytes() {
        true => Ok(file),
        false => Err(format!(
            "{} was changed since the instance has read it; nothing was written. loaded --check --diff shows what a reload would \
             change; reload (HUP), then save",
            path.display()
        )),
    }
}

fn write_beside(beside: &Path, like: &fs::Metadata, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    fchown(&file, Some(like.uid()), Some(like.gid()))?;
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A name in the same directory that no pattern of the key `include` matches.
fn name_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn told(path: &Path, act: &str, error: &io::Error) -> String {
    format!("{}: {act}: {error}; nothing was changed", path.display())
}
