//! Statements and blocks: `word word;` or a line of words, and `word word { … }`. keepalived and nginx both consist of them
//! and differ in how a word is written and where a statement ends.

use crate::position::{Position, Unreadable};

/// Deepest block. keepalived has four levels, nginx's stream three.
const MAX_DEPTH: usize = 32;

/// A word without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) at: Position,
}

/// A statement, with its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Never empty.
    pub(crate) words: Vec<Word>,
    pub(crate) block: Option<Vec<Statement>>,
    pub(crate) at: Position,
}

impl Statement {
    /// A word, or nothing where there is none.
    pub(crate) fn word(&self, number: usize) -> &str {
        self.words.get(number).map_or("", |word| &word.text)
    }

    /// The words after the first.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).map(|word| word.text.as_str())
    }

    /// Its block, or nothing.
    pub(crate) fn inner(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Its words as a text.
    pub(crate) fn say(&self) -> String {
        self.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// Puts words together. Blocks that are open are on a stack, so depth costs no recursion.
pub(crate) struct Grower {
    words: Vec<Word>,
    done: Vec<Statement>,
    /// Blocks around: what stands before each brace, and what was done outside.
    around: Vec<(Statement, Vec<Statement>)>,
}

impl Grower {
    pub(crate) fn new() -> Self {
        Self { words: Vec::new(), done: Vec::new(), around: Vec::new() }
    }

    pub(crate) fn word(&mut self, text: String, at: Position) {
        self.words.push(Word { text, at });
    }

    pub(crate) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Ends a statement.
    pub(crate) fn end(&mut self) {
        let statement = self.statement();
        self.done.extend(statement);
    }

    /// Opens a block of the words before; if there are none, of the statement before.
    pub(crate) fn open(&mut self, at: &Position) -> Result<(), Unreadable> {
        if self.around.len() == MAX_DEPTH {
            return Err(at.unreadable(format!("blocks are nested deeper than {MAX_DEPTH}")));
        }
        let earlier = self.statement().or_else(|| self.done.pop_if(|last| last.block.is_none()));
        let head = earlier.ok_or_else(|| at.unreadable("a block begins here, but nothing names it"))?;
        self.around.push((head, std::mem::take(&mut self.done)));
        Ok(())
    }

    /// Closes a block.
    pub(crate) fn close(&mut self, at: &Position) -> Result<(), Unreadable> {
        self.end();
        let (head, outside) = self.around.pop().ok_or_else(|| at.unreadable("} closes nothing: no block is open"))?;
        let block = std::mem::replace(&mut self.done, outside);
        self.done.push(Statement { block: Some(block), ..head });
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Vec<Statement>, Unreadable> {
        self.end();
        match self.around.pop() {
            Some((head, _)) => Err(head.at.unreadable(format!("the block {:?} is not closed", head.word(0)))),
            None => Ok(self.done),
        }
    }

    fn statement(&mut self) -> Option<Statement> {
        let words = std::mem::take(&mut self.words);
        let at = words.first()?.at.clone();
        Some(Statement { words, block: None, at })
    }
}
