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
//! Below `# loaded: script` names may be close to keys, but a key itself is an error: the shell would see the
//! assignment, we would not.

use super::key::Key;
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

/// The entries of one file, in order.
pub(super) fn entries(source: usize, text: &str) -> Result<Vec<Entry<'_>>, Flaw> {
    let mut entries = Vec::new();
    let mut configuring = true;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_start_matches(BLANKS);
        let mark = Mark { source, offset: offset + line.len() - body.len() };
        offset += line.len();
        let body = body.strip_suffix('\n').unwrap_or(body);
        match body.strip_prefix('#') {
            Some(comment) => configuring &= comment.trim() != END,
            None if configuring => entries.extend(entry(&At { value: body, mark })?),
            None => pass(&At { value: body, mark })?,
        }
    }
    Ok(entries)
}

/// A line of the configuration: an entry, or none of our business.
fn entry<'t>(line: &At<&'t str>) -> Result<Option<Entry<'t>>, Flaw> {
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
    match (Key::from_name(name), nearest(name, &Key::NAMES)) {
        (Some(key), _) => match rest.strip_prefix('=') {
            Some(value) => value_of(line, key, value).map(Some),
            None if assigns => Err(line.flaw(format!("write {name}=value, without blanks around the = and without +"))),
            None if bare && key == Key::Failover => Ok(Some(Entry { key, value: line.with("") })),
            None if bare => Err(line.flaw(format!("{name} has no value; write {name}=value"))),
            None => Ok(None),
        },
        (None, Some(meant)) if assigns || (bare && meant == Key::Failover.name()) => Err(line.flaw(format!(
            "{name} is not a key; did you mean {meant}? A variable of the script goes below the line \"# {END}\""
        ))),
        _ => Ok(None),
    }
}

/// A line below [`END`].
fn pass(line: &At<&str>) -> Result<(), Flaw> {
    let (name, rest) = word(line.value);
    match Key::from_name(name) {
        Some(_) if rest.starts_with('=') => {
            Err(line.flaw(format!("{name} is below the line \"# {END}\" and would have no effect; move it above")))
        }
        _ => Ok(()),
    }
}

fn value_of<'t>(line: &At<&str>, key: Key, rest: &'t str) -> Result<Entry<'t>, Flaw> {
    let name = key.name();
    let end = rest.find([' ', '\t', '#']).unwrap_or(rest.len());
    let (value, tail) = rest.split_at(end);
    let offset = line.mark.offset + name.len() + 1;
    let value = At { value, mark: Mark { offset, ..line.mark } };
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
        let mark = Mark { offset: offset + rest.len() - tail_text.len(), ..line.mark };
        return Err(mark.flaw(format!("{name} takes one value; give each its own line, and start a comment with #")));
    }
    Ok(Entry { key, value })
}

fn exported(line: &At<&str>, rest: &str) -> Result<(), Flaw> {
    let (name, after) = word(rest.trim_start_matches(BLANKS));
    match Key::from_name(name) {
        Some(_) if after.starts_with('=') => {
            Err(line.flaw(format!("write {name}=value on a line of its own, and export it below")))
        }
        _ => Ok(()),
    }
}

/// A table header of TOML is no shell: the file has the wrong name.
fn table(line: &At<&str>) -> Result<(), Flaw> {
    match line.value.starts_with("[[service") {
        true => Err(line.flaw("this is TOML; give the file a name that ends in .toml")),
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
        entries(0, text).unwrap().into_iter().map(|entry| (entry.key, entry.value.value)).collect()
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
        assert!(entries(0, "# loaded: script\n  server4=10.0.0.1\n").is_err());
    }

    #[test]
    fn places_are_those_of_the_values() {
        let entries = entries(7, "\n  VIP4=a\n").unwrap();
        assert_eq!(entries[0].value.mark, Mark { source: 7, offset: 8 });
    }
}
