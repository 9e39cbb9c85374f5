//! The words of nginx.conf: src/core/ngx_conf_file.c. A statement ends at `;` or has a block; a `#` at the start of a word
//! begins a comment; a quoted word may have blanks and braces, a backslash takes the next letter as it is.

use crate::position::{Letters, Position, Unreadable};
use crate::tree::{Grower, Statement};
use loaded_config::Source;

/// All statements of a file.
pub(super) fn statements(source: &Source) -> Result<Vec<Statement>, Unreadable> {
    let mut letters = Letters::of(source);
    let mut grower = Grower::new();
    // Where the statement begins that is not over yet.
    let mut open = None;
    while let Some(letter) = letters.peek() {
        let at = letters.position();
        match letter {
            ';' => {
                if !grower.has_words() {
                    return Err(at.unreadable("; ends nothing"));
                }
                grower.end();
            }
            '{' => {
                if !grower.has_words() {
                    return Err(at.unreadable("a block begins here, but nothing names it"));
                }
                grower.open(&at)?;
            }
            '}' => {
                if grower.has_words() {
                    return Err(open.unwrap_or(at).unreadable("this statement has no ; at its end"));
                }
                grower.close(&at)?;
            }
            '#' => {
                letters.skip_line();
                continue;
            }
            blank if blank.is_whitespace() => {}
            _ => {
                if !grower.has_words() {
                    open = Some(at.clone());
                }
                grower.word(word(&mut letters, &at)?, at);
                continue;
            }
        }
        letters.next();
    }
    match open.filter(|_| grower.has_words()) {
        Some(open) => Err(open.unreadable("this statement has no ; at its end")),
        None => grower.finish(),
    }
}

/// One word, without its quotes.
fn word(letters: &mut Letters<'_>, at: &Position) -> Result<String, Unreadable> {
    let quote = letters.next_if_quote();
    let mut text = String::new();
    while let Some(letter) = letters.peek() {
        match (quote, letter) {
            (_, '\\') => {
                letters.next();
                text.extend(letters.peek());
            }
            (Some(quote), letter) if letter == quote => {
                letters.next();
                return Ok(text);
            }
            (Some(_), letter) => text.push(letter),
            (None, '{') if text.ends_with('$') => {
                while let Some(letter) = letters.peek().filter(|c| *c != '}' && *c != '\n') {
                    text.push(letter);
                    letters.next();
                }
                text.extend(letters.peek());
            }
            (None, ';' | '{' | '}') => return Ok(text),
            (None, blank) if blank.is_whitespace() => return Ok(text),
            (None, letter) => text.push(letter),
        }
        letters.next();
    }
    match quote {
        Some(quote) => Err(at.unreadable(format!("the quote {quote} is not closed"))),
        None => Ok(text),
    }
}

impl Letters<'_> {
    fn next_if_quote(&mut self) -> Option<char> {
        let quote = self.peek().filter(|c| matches!(c, '"' | '\''))?;
        self.next()?;
        Some(quote)
    }
}
