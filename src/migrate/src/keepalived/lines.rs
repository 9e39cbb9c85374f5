//! The lines of keepalived.conf. Blanks separate words, a line's end or a brace ends a statement, `!` and `#` begin a comment,
//! quotes and a backslash take letters as they are, `$NAME=value` defines what `$NAME` and `${NAME}` stand for.

use crate::position::{Letters, Position, Unreadable};
use crate::tree::{Grower, Statement};
use loaded_config::Source;
use std::collections::HashMap;

/// Longest value of a definition, bytes: it may be put in many times.
const MAX_VALUE: usize = 256;

/// All statements of a file.
pub(super) fn statements(source: &Source) -> Result<Vec<Statement>, Unreadable> {
    let mut letters = Letters::of(source);
    let mut grower = Grower::new();
    while let Some(letter) = letters.peek() {
        let at = letters.position();
        match letter {
            '\n' => grower.end(),
            '{' => grower.open(&at)?,
            '}' => grower.close(&at)?,
            '!' | '#' => {
                letters.skip_line();
                continue;
            }
            blank if blank.is_whitespace() => {}
            _ => {
                let text = word(&mut letters, &at)?;
                if !text.is_empty() {
                    grower.word(text, at);
                }
                continue;
            }
        }
        letters.next();
    }
    let mut statements = grower.finish()?;
    define(&mut statements);
    Ok(statements)
}

/// One word, without its quotes.
fn word(letters: &mut Letters<'_>, at: &Position) -> Result<String, Unreadable> {
    let mut text = String::new();
    let mut quote = None;
    while let Some(letter) = letters.peek() {
        match (quote, letter) {
            (Some(_), '\n') => break,
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (_, '\\') => {
                letters.next();
                text.extend(letters.peek().filter(|c| *c != '\n'));
            }
            (None, '{') if text.ends_with('$') => text.push('{'),
            (None, '}') if text.contains("${") && !text.ends_with('}') => text.push('}'),
            (None, '{' | '}' | '!' | '#') => return Ok(text),
            (None, blank) if blank.is_whitespace() => return Ok(text),
            (_, letter) => text.push(letter),
        }
        letters.next();
    }
    match quote {
        Some(quote) => Err(at.unreadable(format!("the quote {quote} is not closed on its line"))),
        None => Ok(text),
    }
}

/// Puts in what definitions stand for: once, so that none can stand for itself.
fn define(statements: &mut [Statement]) {
    let mut values: HashMap<String, String> = HashMap::new();
    for statement in statements.iter() {
        if let Some((name, value)) = statement.word(0).strip_prefix('$').and_then(|text| text.split_once('=')) {
            let rest = statement.arguments().map(|word| format!(" {word}")).collect::<String>();
            if value.len() + rest.len() <= MAX_VALUE {
                values.insert(name.to_owned(), format!("{value}{rest}"));
            }
        }
    }
    if !values.is_empty() {
        replace(statements, &values, true);
    }
}

/// As deep as blocks are, which [`Grower`] bounds.
fn replace(statements: &mut [Statement], values: &HashMap<String, String>, top: bool) {
    for statement in statements {
        for word in &mut statement.words {
            let name = word.text.strip_prefix('$').map(|name| name.trim_start_matches('{').trim_end_matches('}'));
            if let Some(value) = name.filter(|name| !top || !name.contains('=')).and_then(|name| values.get(name)) {
                word.text.clone_from(value);
            }
        }
        replace(statement.block.as_deref_mut().unwrap_or_default(), values, false);
    }
}
