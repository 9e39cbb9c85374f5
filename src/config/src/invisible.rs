//! Characters that no editor shows: what is copied from a web page or a chat brings them along.

/// What a UTF-8 file of some editors begins with.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether an editor shows nothing, or a mere blank, where this character is. Blank, tab and the ends of lines are no such
/// characters.
pub(super) fn is_invisible(c: char) -> bool {
    match c {
        ' ' | '\t' | '\n' | '\r' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | BYTE_ORDER_MARK => true,
        _ => c.is_control() || c.is_whitespace(),
    }
}

/// What to call such a character.
pub(super) fn name(c: char) -> String {
    let word = match c {
        '\u{a0}' | '\u{202f}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero width space",
        BYTE_ORDER_MARK => "byte order mark",
        c if c.is_control() => "control character",
        c if c.is_whitespace() => "unusual blank",
        _ => "invisible character",
    };
    format!("U+{:04X} ({word})", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_editor_shows_is_not_invisible() {
        for c in ['\u{feff}', '\u{a0}', '\u{200b}', '\u{202e}', '\u{3000}', '\0', '\u{1b}', '\u{ad}'] {
            assert!(is_invisible(c), "{c:?}");
        }
        assert!(" \t\r\nVIP4=ü—".chars().all(|c| !is_invisible(c)));
        assert_eq!(name('\u{a0}'), "U+00A0 (no-break space)");
    }
}
