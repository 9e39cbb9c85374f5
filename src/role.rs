//! The hidden command line of a child, as the supervisor writes it: `--role worker UID GID NAME CORE PARENT REQUIREMENT SURVIVAL PATH`,
//! `--role prober UID GID NAME PARENT REQUIREMENT WORKERS MARKED`, `--role exporter UID GID NAME PARENT REQUIREMENT`,
//! `--role notice UID GID NAME PROGRAM ARGUMENT…` or `--role trial`.

use loaded_exporter::Arguments as Exporter;
use loaded_netfilter::trial;
use loaded_prober::Arguments as Prober;
use loaded_sandbox::{Identity, SandboxRequirement, Survival};
use loaded_worker::run::Arguments;
use std::ffi::OsString;

/// The worker this process is to be, if it is one.
pub(crate) fn worker(arguments: &[OsString]) -> Option<Arguments> {
    let words = words(arguments)?;
    let &[_, "--role", "worker", uid, gid, name, core, parent, word, survival, path] = words.as_slice() else {
        return None;
    };
    Some(Arguments {
        identity: identity(uid, gid, name)?,
        core: core.parse().ok()?,
        parent: parent.parse().ok()?,
        requirement: requirement(word),
        survival: if survival == "outlives" { Survival::Outlives } else { Survival::DiesToo },
        fast: path == "fast",
    })
}

/// The prober this process is to be, if it is one.
pub(crate) fn prober(arguments: &[OsString]) -> Option<Prober> {
    let words = words(arguments)?;
    let &[_, "--role", "prober", uid, gid, name, parent, word, workers, marked] = words.as_slice() else {
        return None;
    };
    Some(Prober {
        identity: identity(uid, gid, name)?,
        parent: parent.parse().ok()?,
        requirement: requirement(word),
        workers: workers.parse().ok()?,
        marked: marked.parse().ok()?,
    })
}

/// The exporter this process is to be, if it is one.
pub(crate) fn exporter(arguments: &[OsString]) -> Option<Exporter> {
    let words = words(arguments)?;
    let &[_, "--role", "exporter", uid, gid, name, parent, word] = words.as_slice() else { return None };
    Some(Exporter { identity: identity(uid, gid, name)?, parent: parent.parse().ok()?, requirement: requirement(word) })
}

/// The user and the program that this process is to become, if it is to tell the operator something.
pub(crate) fn notice(arguments: &[OsString]) -> Option<(Identity, Vec<OsString>)> {
    let (head, program) = arguments.split_at_checked(6)?;
    let words = words(head)?;
    let &[_, "--role", "notice", uid, gid, name] = words.as_slice() else { return None };
    (!program.is_empty()).then_some((identity(uid, gid, name)?, program.to_vec()))
}

/// Whether this process is to try the kernel.
pub(crate) fn is_trial(arguments: &[OsString]) -> bool {
    words(arguments).is_some_and(|words| matches!(words.as_slice(), [_, "--role", trial::ROLE]))
}

/// `None` where a word is not UTF-8: such a line is the operator's.
fn words(arguments: &[OsString]) -> Option<Vec<&str>> {
    arguments.iter().map(|word| word.to_str()).collect()
}

fn identity(uid: &str, gid: &str, name: &str) -> Option<Identity> {
    Some(Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()?, name: name.to_owned() })
}

/// What is not understood is the strict one.
fn requirement(word: &str) -> SandboxRequirement {
    if word == "allow-weak" { SandboxRequirement::AllowWeak } else { SandboxRequirement::Required }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_worker_is_told_who_where_and_whose_it_is() {
        let worker = worker(&line("loaded --role worker 9 8 nine 3 77 allow-weak outlives fast")).unwrap();
        assert_eq!((worker.identity.uid, worker.identity.gid, worker.identity.name.as_str()), (9, 8, "nine"));
        assert_eq!((worker.core, worker.parent), (3, 77));
        assert!(matches!(worker.requirement, SandboxRequirement::AllowWeak) && worker.survival == Survival::Outlives);
    }

    #[test]
    fn a_prober_is_told_how_many_workers_there_are() {
        let prober = prober(&line("loaded --role prober 9 8 nine 77 required 64 3")).unwrap();
        assert_eq!((prober.identity.uid, prober.identity.gid, prober.identity.name.as_str()), (9, 8, "nine"));
        assert_eq!((prober.parent, prober.workers, prober.marked), (77, 64, 3));
        assert!(matches!(prober.requirement, SandboxRequirement::Required));
    }

    #[test]
    fn an_exporter_is_told_whose_it_is() {
        let exporter = exporter(&line("loaded --role exporter 9 8 nine 77 required")).unwrap();
        assert_eq!((exporter.identity.uid, exporter.identity.gid, exporter.parent), (9, 8, 77));
        assert!(matches!(exporter.requirement, SandboxRequirement::Required));
        assert!(super::exporter(&line("loaded --role exporter 9 8 nine 77 required more")).is_none());
    }

    #[test]
    fn no_other_line_is_a_child() {
        for other in [
            "loaded",
            "loaded --role prober 9 8 nine 77 required",
            "loaded --role prober 9 8 nine 77 required 65536 0",
            "loaded --role worker 9 8 nine 3 77 required",
            "loaded --role prober -1 8 nine 77 required 1 0",
            "loaded --role prober 9 8 nine 77 required 1 more",
            "loaded --role prober 9 8 nine 77 required 1 0 more",
            "loaded -U nobody -f",
        ] {
            assert!(prober(&line(other)).is_none() && worker(&line(other)).is_none(), "{other}");
        }
        assert!(is_trial(&line("loaded --role trial")) && !is_trial(&line("loaded --role trial more")));
        assert!(worker(&line("loaded --role prober 9 8 nine 77 required 1 0")).is_none());
        assert!(prober(&line("loaded --role worker 9 8 nine 3 77 required dies")).is_none());
    }
}
