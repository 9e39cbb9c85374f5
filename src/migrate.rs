//! `loaded migrate`: reads the files and prints what becomes of them. Translating them is `loaded-migrate`'s work.

use crate::cli::MigrateLine;
use loaded_config::{MAX_FILE_BYTES, Source};
use loaded_control::text::plain;
use loaded_migrate::{Format, Migrated, Options, guess};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Everything was carried over.
const ALL: i32 = 0;
/// Something was not.
const NOT_ALL: i32 = 1;
/// There is no output: a file cannot be read, or is not of the format.
const UNREADABLE: i32 = 2;

/// Prints a `loaded.toml` to stdout and what is not in it to stderr. Returns the exit code.
pub(crate) fn run(line: &MigrateLine) -> i32 {
    let Migrated { toml, services, lost } = match migrated(line) {
        Ok(migrated) => migrated,
        Err(text) => {
            complain(&format!("loaded: error: {text}"));
            return UNREADABLE;
        }
    };
    if io::stdout().write_all(toml.as_bytes()).is_err() {
        return UNREADABLE;
    }
    for line in &lost {
        complain(&format!("loaded: not carried over: {line}"));
    }
    if services == 0 {
        complain("loaded: no service is left: this is no configuration yet");
    }
    if lost.is_empty() && services > 0 { ALL } else { NOT_ALL }
}

fn migrated(line: &MigrateLine) -> Result<Migrated, String> {
    let sources = line.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let format = line.from.map(Format::from).or_else(|| sources.iter().find_map(|source| guess(source.text())));
    let Some(format) = format else {
        let names = Format::ALL.map(Format::name).join(", ");
        let files: Vec<_> = line.files.iter().map(|path| path.display().to_string()).collect();
        return Err(format!(
            "{}: no line tells whose configuration it is; write --from with one of {names}",
            files.join(", ")
        ));
    };
    let options = Options { vips: line.vip.clone(), failover: line.failover };
    loaded_migrate::migrate(&sources, format, &options).map_err(|error| error.to_string())
}

/// A file, or what is piped in. A pipe between two commands is no regular file, and welcome.
fn read(path: &Path) -> Result<Source, String> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let unreadable = |error: io::Error| format!("{name}: cannot be read: {error}");
    let input: Box<dyn Read> =
        if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(unreadable)?) };
    let mut bytes = Vec::new();
    input.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{name}: is larger than {MAX_FILE_BYTES} bytes"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => {
            let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let last = good.rsplit('\n').next().unwrap_or_default();
            let (row, column) = (good.matches('\n').count() + 1, last.chars().count() + 1);
            Err(format!("{name}:{row}:{column}: this byte is no UTF-8; convert the file with iconv"))
        }
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(text));
}
