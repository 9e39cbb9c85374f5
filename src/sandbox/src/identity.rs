//! The user that children become, and the directory they are confined to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::User;

use crate::error::SandboxError;

/// The empty directory that is a child's whole file system; the same path as in the original.
pub const CHROOT: &str = "/var/run/empty";

/// An unprivileged user, looked up once by the supervisor: there is no user database inside the chroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Never 0.
    pub uid: u32,
    /// The primary group, never 0.
    pub gid: u32,
    /// The name as given with `-U`, for messages.
    pub name: String,
}

impl Identity {
    /// Looks up a name; refuses uid 0 and gid 0, which would make every later step meaningless.
    pub fn lookup(user: &str) -> Result<Identity, SandboxError> {
        let found = User::from_name(user)
            .map_err(|source| SandboxError::LookUpUser { user: user.to_owned(), source })?
            .ok_or_else(|| SandboxError::UnknownUser { user: user.to_owned() })?;
        let identity = Identity { uid: found.uid.as_raw(), gid: found.gid.as_raw(), name: user.to_owned() };
        identity.refuse_root()?;
        Ok(identity)
    }

    /// The fields are public, so each use checks again.
    pub(crate) fn refuse_root(&self) -> Result<(), SandboxError> {
        for (what, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id == 0 {
                return Err(SandboxError::RootUser { user: self.name.clone(), what });
            }
        }
        Ok(())
    }
}

/// Checks that the directory belongs to root, that nobody else can write to it, and that it is empty. It is not created
/// here, because whoever packages `loaded` should know of it. Every call in a release passes `Path::new(CHROOT)`.
pub fn check_chroot_dir(path: &Path) -> Result<(), SandboxError> {
    let unfit = |problem: String| SandboxError::ChrootDir { path: path.to_owned(), problem };
    // Does not follow the last component: the owner of a symlink's target could replace it at any time.
    let meta = fs::symlink_metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => unfit("does not exist".to_owned()),
        _ => unfit(e.to_string()),
    })?;
    if !meta.is_dir() {
        return Err(unfit("is not a directory".to_owned()));
    }
    if meta.uid() != 0 {
        return Err(unfit(format!("belongs to uid {}, not to root", meta.uid())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(unfit(format!("mode {:04o} lets others write into it", meta.mode() & 0o7777)));
    }
    let mut entries = fs::read_dir(path).map_err(|e| unfit(e.to_string()))?;
    if let Some(entry) = entries.next() {
        let name = entry.map_or_else(|e| e.to_string(), |e| e.file_name().to_string_lossy().into_owned());
        return Err(unfit(format!("is not empty (it holds \"{name}\")")));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused() {
        let text = Identity::lookup("root").unwrap_err().to_string();
        assert!(text.contains("\"root\"") && text.contains("uid 0"), "{text}");
    }

    #[test]
    fn a_group_of_root_is_refused() {
        let identity = Identity { uid: 65534, gid: 0, name: "halfroot".to_owned() };
        assert!(identity.refuse_root().unwrap_err().to_string().contains("gid 0"));
    }

    #[test]
    fn an_unknown_user_is_named() {
        let text = Identity::lookup("no-such-user-here").unwrap_err().to_string();
        assert!(text.contains("no-such-user-here") && text.contains("no such user"), "{text}");
    }

    #[test]
    fn nobody_is_found() {
        let nobody = Identity::lookup("nobody").unwrap();
        assert_ne!((nobody.uid, nobody.gid), (0, 0));
    }

    #[test]
    fn the_chroot_must_exist_be_ours_and_be_empty() {
        let says = |path: &str| check_chroot_dir(Path::new(path)).unwrap_err().to_string();
        let absent = says("/nonexistent/empty");
        assert!(absent.contains("does not exist"), "{absent}");
        assert!(absent.contains("install -d -m 0755 -o root -g root /nonexistent/empty"), "{absent}");
        assert!(says("/etc/passwd").contains("is not a directory"));
        assert!(says("/tmp").contains("lets others write"));
        assert!(says("/etc").contains("is not empty"));
    }
}
