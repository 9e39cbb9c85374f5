//! The lines of a classic file. It is a POSIX shell script too, so most lines are none of our business; a line
//! that was meant for us and missed is an error.
//!
//! How a line is read, after leading blanks (everything that is not named here is script and passes):
//!
//! * `#…` is a comment. The comment `# loaded: script` ends the configuration.
//! * `KEY=value`: the value ends at a blank, tab, `#` or line end; only a comment may follow. No quotes, no
//!   `$`: the shell would take them away, this reader does not.
//! * `failover` alone is a key without a value.
//! * A name close to a key (see `near`) before `=`, blanks around `=`, `KEY+=`, `export KEY=` are errors.
//!
//! * What would be a line for us without a character that no editor shows is an error.
//!
//! Below `# loaded: script` names may be close to keys, but a key itself is an error: the shell would see the
//! assignment, we would not.

use super::key::Key;
use crate::invisible::{self, BYTE_ORDER_MARK};
use crate::location::{At, Flaw, Mark};
use crate::near::nearest;

/// The comment that ends the configuration, without its `#`.
const END: &str = "loaded: script";

const BLANKS: [char; 2] = [' ', '\t'];

/// One configured key; the place of a value is where the value starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'t> {
    pub(super) key: Key,
    /// Never empty, except for the bare word `failover`.
    pub(super) value: At<&'t str>,
}

/// A line that was meant for us and missed: what is wrong, and the key, where one can be told.
#[derive(Debug)]
pub(super) struct Miss {
    pub(super) key: Option<Key>,
    pub(super) flaw: Flaw,
}

/// The entries of one file, in order, and the lines that are wrong.
pub(super) fn entries(source: usize, text: &str) -> Vec<Result<Entry<'_>, Miss>> {
    let mut entries = Vec::new();
    let mut configuring = true;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_start_matches(BLANKS);
        let start = offset + line.len() - body.len();
        offset += line.len();
        let body = body.strip_suffix('\n').unwrap_or(body);
        let line = At { value: body, mark: Mark { source, offset: start, length: body.len() } };
        let read = match body.strip_prefix('#') {
            Some(comment) => {
                configuring &= comment.trim() != END;
                Ok(None)
            }
            None if configuring => visible(&line).and_then(|()| entry(&line)),
            None => pass(&line).map(|()| None),
        };
        entries.extend(read.transpose());
    }
    entries
}

/// Refuses a line that would be ours without the characters in it that nobody sees.
fn visible(line: &At<&str>) -> Result<(), Miss> {
    let Some((at, unseen)) = line.value.char_indices().find(|(_, c)| invisible::is_invisible(*c)) else {
        return Ok(());
    };
    let plain: String = line.value.chars().filter(|c| !invisible::is_invisible(*c)).collect();
    let (name, rest) = word(&plain);
    let assigns = rest.trim_start_matches(BLANKS).starts_with('=');
    let key = Key::from_name(name).or_else(|| nearest(name, &Key::NAMES).and_then(Key::from_name)).filter(|_| assigns);
    let shebang = unseen == BYTE_ORDER_MARK && plain.starts_with('#');
    if key.is_none() && !shebang {
        return Ok(());
    }
    let text = match unseen {
        BYTE_ORDER_MARK => {
            "the file begins with U+FEFF (byte order mark), which sh takes as part of the first word; take it out \
                            with sed -i '1s/^\\xEF\\xBB\\xBF//'"
                .to_owned()
        }
        unseen => format!("{} is here, which no editor shows; type the line anew", invisible::name(unseen)),
    };
    let mark = Mark { offset: line.mark.offset + at, length: unseen.len_utf8(), ..line.mark };
    Err(Miss { key, flaw: mark.flaw(text) })
}

/// A line of the configuration: an entry, or none of our business.
fn entry<'t>(line: &At<&'t str>) -> Result<Option<Entry<'t>>, Miss> {
    let (name, rest) = word(line.value);
    if name.is_empty() {
        return table(line).map(|()| None);
    }
    if matches!(name, "export" | "readonly") {
        return exported(line, rest).map(|()| None);
    }
    let after = rest.trim_start_matches(BLANKS);
    let assigns = after.starts_with('=') || after.starts_with("+=");
    let bare = after.is_empty() || after.starts_with('#') || after == "\r";
    if let Some(key) = Key::from_name(name) {
        let missed = |flaw| Miss { key: Some(key), flaw };
        return match rest.strip_prefix('=') {
            Some(value) => value_of(line, key, value).map(Some).map_err(missed),
            None if assigns => {
                Err(missed(line.flaw(format!("write {name}=value, without blanks around the = and without +"))))
            }
            None if bare && key == Key::Failover => Ok(Some(Entry { key, value: line.with("") })),
            None if bare => Err(missed(line.flaw(format!("{name} has no value; write {name}=value")))),
            None => Ok(None),
        };
    }
    match nearest(name, &Key::NAMES) {
        Some(meant) if assigns || (bare && meant == Key::Failover.name()) => {
            let text = format!(
                "{name} is not a key; did you mean {meant}? A variable of the script goes below the line \"# {END}\""
            );
            Err(Miss { key: Key::from_name(meant), flaw: line.flaw(text) })
        }
        _ => Ok(None),
    }
}

/// A line below [`END`].
fn pass(line: &At<&str>) -> Result<(), Miss> {
    let (name, rest) = word(line.value);
    match Key::from_name(name).filter(|_| rest.starts_with('=')) {
        None => Ok(()),
        key => {
            let text = format!("{name} is below the line \"# {END}\" and would have no effect; move it above");
            Err(Miss { key, flaw: line.flaw(text) })
        }
    }
}

fn value_of<'t>(line: &At<&str>, key: Key, rest: &'t str) -> Result<Entry<'t>, Flaw> {
    let name = key.name();
    let end = rest.find([' ', '\t', '#']).unwrap_or(rest.len());
    let (value, tail) = rest.split_at(end);
    let offset = line.mark.offset + name.len() + 1;
    let value = At { value, mark: Mark { offset, length: value.len(), ..line.mark } };
    let tail_text = tail.trim_start_matches(BLANKS);
    if line.value.ends_with('\r') {
        return Err(line.flaw(
            "the line ends in a carriage return, which sh would take as part of the value; \
                              convert the file with sed -i 's/\\r$//'",
        ));
    }
    if value.value.is_empty() && !tail_text.is_empty() && !tail_text.starts_with('#') {
        return Err(value.flaw(format!("write {name}=value, without blanks around the =")));
    }
    if value.value.is_empty() {
        return Err(value.flaw(format!("{name} has no value; write one or remove the line")));
    }
    if value.value.contains(['"', '\'']) {
        return Err(value.flaw(format!("write the value of {name} without quotes; it is taken literally")));
    }
    if value.value.contains(['$', '`', '\\']) {
        return Err(
            value.flaw(format!("write the value of {name} itself; only the shell knows its variables and escapes"))
        );
    }
    if !tail_text.is_empty() && !tail_text.starts_with('#') {
        let mark = Mark { offset: offset + rest.len() - tail_text.len(), length: tail_text.len(), ..line.mark };
        return Err(mark.flaw(format!("{name} takes one value; give each its own line, and start a comment with #")));
    }
    Ok(Entry { key, value })
}

fn exported(line: &At<&str>, rest: &str) -> Result<(), Miss> {
    let (name, after) = word(rest.trim_start_matches(BLANKS));
    match Key::from_name(name).filter(|_| after.starts_with('=')) {
        None => Ok(()),
        key => {
            let text = format!("write {name}=value on a line of its own, and export it below");
            Err(Miss { key, flaw: line.flaw(text) })
        }
    }
}

/// A table header of TOML is no shell: the file has the wrong name.
fn table(line: &At<&str>) -> Result<(), Miss> {
    match line.value.starts_with("[[service") {
        true => Err(Miss { key: None, flaw: line.flaw("this is TOML; give the file a name that ends in .toml") }),
        false => Ok(()),
    }
}

/// Splits off a leading shell name; `-` counts too, for slips such as `VIP-4`.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Key, &str)> {
        entries(0, text).into_iter().map(|entry| entry.unwrap()).map(|entry| (entry.key, entry.value.value)).collect()
    }

    #[test]
    fn values_end_where_the_original_ended_them() {
        let expected = vec![(Key::Vip4, "192.0.2.1")];
        for text in ["VIP4=192.0.2.1", "VIP4=192.0.2.1\n", " \tVIP4=192.0.2.1\t# virtual", "VIP4=192.0.2.1#virtual"] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_longer_key_is_not_its_prefix() {
        assert_eq!(read("VIP4net=24\nVIP6net=64"), [(Key::Vip4Net, "24"), (Key::Vip6Net, "64")]);
    }

    #[test]
    fn script_passes() {
        let script = "#!/bin/sh\nset -eu\nmodprobe nfnetlink_queue || true\nfor i in $public_NIC all; do\n\techo 0 > /x\ndone\n\
                      if [ \"$VIP4\" = x ]; then exit 0; fi\nPATH=/bin\nIFS=' '\nip addr add $VIP4/$VIP4net dev $public_NIC\n\
                      f() { return 1; }\nVIP4_of_mine() { :; }\nexport PATH=/bin\n\u{fffd}=\n-x=1\n";
        assert_eq!(read(script), []);
    }

    #[test]
    fn below_the_marker_only_keys_are_watched() {
        assert_eq!(read("NS=192.0.2.1\n#loaded: script \nvip=1\nserver=2\nVIP4 = x\n"), [(Key::Ns, "192.0.2.1")]);
        assert!(entries(0, "# loaded: script\n  server4=10.0.0.1\n")[0].is_err());
    }

    #[test]
    fn places_are_those_of_the_values() {
        let entries = entries(7, "\n  VIP4=a\n");
        let mark = entries[0].as_ref().unwrap().value.mark;
        assert_eq!(mark, Mark { source: 7, offset: 8, length: 1 });
    }
}
