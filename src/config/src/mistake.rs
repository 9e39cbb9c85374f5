//! What is wrong with the files: all of it is collected, so that an operator mends a file once.

use super::location::{Flaw, Location, Mark, Source};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Mistakes that are told of; whoever has made more has to mend these first.
const MOST: usize = 100;

/// Collects what is wrong while a text is read.
#[derive(Debug, Default)]
pub(super) struct Mistakes(RefCell<Vec<Flaw>>);

/// Keys of a table that were written, but cannot be read. What depends on them is not judged: it would be a second message about
/// the same mistake.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(pub(super) Vec<&'static str>);

impl Unread {
    /// Whether all of these keys could be read, or were not written.
    pub(super) fn spares(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.0.contains(key))
    }
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// File, line and column.
    pub at: Location,
    /// What, and what to do.
    pub message: String,
    excerpt: Excerpt,
}

/// What of the file shows the mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: Arc<str>,
    wrong: Range<usize>,
    /// The other place of a conflict, if it is in the same file.
    other: Option<Range<usize>>,
}

impl Mistakes {
    pub(super) fn add(&self, flaw: Flaw) {
        self.0.borrow_mut().push(flaw);
    }

    /// The value; what is wrong with it is kept.
    pub(super) fn take<T>(&self, result: Result<T, Flaw>) -> Option<T> {
        result.map_err(|flaw| self.add(flaw)).ok()
    }

    /// How many there are so far.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// What is wrong, in the order of the files; the first hundred.
    pub(super) fn told(self, sources: &[Source]) -> Vec<Mistake> {
        let mut flaws = self.0.into_inner();
        flaws.sort();
        flaws.dedup();
        flaws.truncate(MOST);
        flaws.into_iter().map(|flaw| Mistake::new(flaw, sources)).collect()
    }
}

impl Mistake {
    pub(super) fn new(flaw: Flaw, sources: &[Source]) -> Self {
        let Flaw { mark, message, see } = flaw;
        let place = |mark: Mark| match sources.get(mark.source) {
            Some(source) => source.location(mark.offset),
            None => Location { path: PathBuf::new(), line: 1, column: 1 },
        };
        let message = see.map(|other| format!("{message} (see {})", place(other))).unwrap_or(message);
        let text = sources.get(mark.source).map_or_else(|| "".into(), Source::shared_text);
        let other = see.filter(|other| other.source == mark.source).map(|other| within_line(&text, other.range()));
        let wrong = within_line(&text, mark.range());
        Self { at: place(mark), message, excerpt: Excerpt { text, wrong, other } }
    }

    /// Place and message, and below them the line in question.
    pub(super) fn report(&self) -> String {
        let Excerpt { text, wrong, other } = &self.excerpt;
        let mut lines = Snippet::source(&**text).annotation(AnnotationKind::Primary.span(wrong.clone()));
        lines = lines.annotations(other.iter().map(|other| AnnotationKind::Context.span(other.clone())));
        let shown = Renderer::plain().render(&[Group::with_level(Level::ERROR).element(lines)]);
        format!("{self}\n{shown}")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// The part of a range that is in its first line, with whole characters.
fn within_line(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(range.start);
    let line = text.get(start..).and_then(|rest| rest.find(['\r', '\n'])).map_or(text.len(), |length| start + length);
    start..text.floor_char_boundary(range.end).clamp(start, line.max(start))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn mark(source: usize, offset: usize, length: usize) -> Mark {
        Mark { source, offset, length }
    }

    #[test]
    fn a_mistake_names_both_places() {
        let sources = [Source::new("a", "x\ny"), Source::new("b", "z")];
        let flaw = mark(0, 2, 1).flaw("twice").see(mark(1, 0, 1));
        assert_eq!(Mistake::new(flaw, &sources).to_string(), "a:2:1: twice (see b:1:1)");
    }

    #[test]
    fn a_report_shows_the_lines_and_marks_the_values() {
        let sources = [Source::new("f", "ports = 80\n\n\n\n\nweight = 0\n")];
        let report = |flaw| Mistake::new(flaw, &sources).report();
        assert_eq!(report(mark(0, 8, 2).flaw("m")), "f:1:9: m\n  |\n1 | ports = 80\n  |         ^^");
        let both = report(mark(0, 24, 1).flaw("m").see(mark(0, 8, 2)));
        assert!(both.contains("1 | ports = 80\n  |         --\n"), "{both}");
        assert!(both.ends_with("6 | weight = 0\n  |          ^"), "{both}");
        let end = report(mark(0, 999, 5).flaw("m"));
        assert!(end.starts_with("f:7:1: m\n"), "{end}");
    }

    #[test]
    fn what_a_file_holds_moves_no_cursor() {
        let sources = [Source::new("f", "a = \u{1b}[2J\u{202e}\r\n")];
        let report = Mistake::new(mark(0, 4, 8).flaw("m"), &sources).report();
        assert!(report.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{report:?}");
    }

    #[test]
    fn mistakes_come_in_the_order_of_the_file_and_once() {
        let mistakes = Mistakes::default();
        for offset in [2, 0, 2] {
            mistakes.add(mark(0, offset, 1).flaw("m"));
        }
        assert_eq!(mistakes.take(Err::<(), _>(mark(0, 4, 1).flaw("n"))), None);
        let told: Vec<_> = mistakes.told(&[Source::new("f", "a b c")]).iter().map(Mistake::to_string).collect();
        assert_eq!(told, ["f:1:1: m", "f:1:3: m", "f:1:5: n"]);
        assert!(Mistakes::default().told(&[]).is_empty());
    }
}
