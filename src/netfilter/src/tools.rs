//! Runs the programs that change rules and routes: from directories that are root's, with an empty environment and a timeout.
//! Their stderr goes into the error message.

use crate::{Error, Family};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Searched in this order after those of PATH.
const DIRECTORIES: [&str; 6] =
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/run/current-system/sw/bin"];
/// Longer than `-w 5`, the legacy back end's wait for its lock, and than any transaction seen (0.02 s).
const TOOL_TIMEOUT: Duration = Duration::from_secs(15);
/// A transaction takes 5 to 20 ms, so polling more often gains nothing. One that takes longer is looked at the less often: it
/// costs an eighth of its time more at most.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const SHARE: u32 = 8;

/// Paths of the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    restore: [PathBuf; 2],
    save: [PathBuf; 2],
    nft: Option<PathBuf>,
    ip: Option<PathBuf>,
}

impl Tools {
    /// Finds all programs: first where an operator's shell finds them, for they may be of another back end of netfilter than those
    /// elsewhere. `nft` (used to leave no empty table behind) and `ip` (for mode "dsr") may be missing.
    ///
    /// # Errors
    /// [`Error::ToolMissing`] names the first that is missing and its package.
    pub fn find() -> Result<Self, Error> {
        let named = std::env::var_os("PATH").unwrap_or_default();
        let named: Vec<_> = std::env::split_paths(&named).filter(|directory| is_of_root(directory)).collect();
        let directories = named.iter().map(PathBuf::as_path).chain(DIRECTORIES.map(Path::new));
        Self::find_in(&directories.collect::<Vec<_>>())
    }

    /// As [`Tools::find`], in other directories.
    ///
    /// # Errors
    /// [`Error::ToolMissing`]
    pub fn find_in(directories: &[&Path]) -> Result<Self, Error> {
        let look = |name: &str| directories.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
        let need = |name: &'static str| look(name).ok_or(Error::ToolMissing { name });
        Ok(Self {
            restore: [need("iptables-restore")?, need("ip6tables-restore")?],
            save: [need("iptables-save")?, need("ip6tables-save")?],
            nft: look("nft"),
            ip: look("ip"),
        })
    }

    /// All tables of a family as text. Unlike `-t raw`, this creates no missing table.
    pub fn save(&self, family: Family) -> Result<String, Error> {
        run(&self.save[family as usize], &[], "")
    }

    /// The same, each rule with its counts before it: `[packets:bytes] -A ...`.
    pub(crate) fn save_with_counts(&self, family: Family) -> Result<String, Error> {
        run(&self.save[family as usize], &["-c"], "")
    }

    /// The same of the raw table alone, which must be there.
    pub(crate) fn save_raw_with_counts(&self, family: Family) -> Result<String, Error> {
        run(&self.save[family as usize], &["-c", "-t", "raw"], "")
    }

    /// Applies a script as one transaction, all or nothing, on both back ends.
    pub fn restore(&self, family: Family, script: &str) -> Result<(), Error> {
        run(&self.restore[family as usize], &["--noflush", "-w", "5"], script).map(drop)
    }

    /// Whether these programs work on nftables: they say so with their version, "iptables-restore v1.8.9 (nf_tables)". An
    /// empty ruleset does not show it.
    pub(crate) fn is_nft(&self) -> bool {
        run(&self.restore[0], &["-V"], "").is_ok_and(|version| version.contains("(nf_tables)"))
    }

    /// Whether `ip` was found; only mode "dsr" needs it.
    pub fn has_ip(&self) -> bool {
        self.ip.is_some()
    }

    /// Runs `ip` for one family.
    pub fn ip(&self, family: Family, arguments: &[&str], input: &str) -> Result<String, Error> {
        let flag = if family == Family::V4 { "-4" } else { "-6" };
        let program = self.ip.as_deref().ok_or(Error::ToolMissing { name: "ip" })?;
        run(program, &[&[flag], arguments].concat(), input)
    }

    /// Runs `nft`; `None` if it is not installed.
    pub fn nft(&self, arguments: &[&str]) -> Option<Result<String, Error>> {
        self.nft.as_ref().map(|nft| run(nft, arguments, ""))
    }
}

/// Whether nobody but root can put a program there: what is found runs as root.
fn is_of_root(directory: &Path) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    let meta = directory.metadata().ok().filter(|_| directory.is_absolute());
    meta.is_some_and(|meta| meta.is_dir() && meta.uid() == 0 && meta.mode() & OTHERS_WRITE == 0)
}

/// Uses files in memory instead of pipes: nothing can block on a full pipe, so no thread is needed to feed one.
/// No other thread of the supervisor may reap all children (`waitpid(-1)`) while this runs.
fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String, Error> {
    let fail = |act, source| Error::Run { program: program.to_owned(), act, source };
    let mut stdin = memory().map_err(|e| fail("make its input", e))?;
    let mut stdout = memory().map_err(|e| fail("make its output", e))?;
    let mut stderr = memory().map_err(|e| fail("make its output", e))?;
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).map_err(|e| fail("write its input", e))?;
    let copy = |file: &File| file.try_clone().map_err(|e| fail("copy a descriptor", e));

    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(stdin)
        .stdout(copy(&stdout)?)
        .stderr(copy(&stderr)?)
        // Ctrl-C at the terminal is meant for us; it must not stop a transaction half-way.
        .process_group(0)
        .spawn()
        .map_err(|e| fail("start it", e))?;
    let begun = Instant::now();
    let deadline = begun + TOOL_TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(|e| fail("wait for it", e))? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY.max(begun.elapsed() / SHARE)),
            None => {
                let killed = child.kill().and_then(|()| child.wait());
                killed.map_err(|e| fail("end it", e))?;
                return Err(Error::Timeout { program: program.to_owned(), seconds: TOOL_TIMEOUT.as_secs() });
            }
        }
    };
    log::debug!("run {} {}: {status}, {:?}", program.display(), arguments.join(" "), begun.elapsed());
    let words = text(&mut stderr).map_err(|e| fail("read its messages", e))?;
    let output = text(&mut stdout).map_err(|e| fail("read its output", e))?;
    succeeded(program, arguments, status, &words).map(|()| output)
}

fn succeeded(program: &Path, arguments: &[&str], status: ExitStatus, words: &str) -> Result<(), Error> {
    if status.success() {
        return Ok(());
    }
    let command = std::iter::once(program.display().to_string()).chain(arguments.iter().map(ToString::to_string));
    let said = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(Error::Failed { command: command.collect::<Vec<_>>().join(" "), status, said })
}

fn memory() -> std::io::Result<File> {
    Ok(File::from(memfd_create(c"loaded-tool", MFdFlags::MFD_CLOEXEC)?))
}

fn text(file: &mut File) -> std::io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let message = Tools::find_in(&[Path::new("/nonexistent")]).unwrap_err().to_string();
        assert!(message.contains("iptables-restore") && message.contains("package iptables"), "{message}");
    }

    #[test]
    fn the_environment_is_empty_and_failures_carry_the_words() {
        assert_eq!(run(Path::new("/usr/bin/env"), &[], "").unwrap(), "");
        assert_eq!(run(Path::new("/bin/cat"), &[], "in and out").unwrap(), "in and out");
        let message = run(Path::new("/bin/cat"), &["/nonexistent"], "").unwrap_err().to_string();
        assert!(message.contains("/bin/cat /nonexistent") && message.contains("No such file"), "{message}");
        assert!(run(Path::new("/nonexistent"), &[], "").unwrap_err().to_string().contains("start it"));
    }
}
