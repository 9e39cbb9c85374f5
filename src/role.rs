//! The hidden command line of a child: `--role worker UID GID NAME CORE PARENT FLOOR`, as the supervisor writes it.

use loaded_jail::{Floor, Identity};
use loaded_worker::run::Arguments;
use std::ffi::OsString;

/// The worker this process is to be, if it is one.
pub(crate) fn worker(arguments: &[OsString]) -> Option<Arguments> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let &[_, "--role", "worker", uid, gid, name, core, parent, floor] = words.as_slice() else { return None };
    Some(Arguments {
        identity: Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()?, name: name.to_owned() },
        core: core.parse().ok()?,
        parent: parent.parse().ok()?,
        floor: if floor == "allow-weak" { Floor::AllowWeak } else { Floor::Required },
    })
}
