//! One frame as lines of text, as wide and as high as it is told.

use super::{Frame, Grade, Row};
use crate::figures::{count, elapsed, latency};
use crate::health::{Effect, InstanceVerdict};
use std::cmp::Reverse;

/// Conditions shown; `loaded status` has all.
const MOST_CONDITIONS: usize = 3;
/// Narrower than this the table is cut.
const NARROWEST: usize = 60;
/// Columns of the table but name and trace, with the spaces between them.
const FIGURES: usize = 49;
const SHORTEST_NAME: usize = 20;
const LONGEST_NAME: usize = 44;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_BARS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// What services, and the backends of each, are sorted by; but for name and state, the largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// As configured.
    #[default]
    Config,
    /// Flows now.
    Flows,
    /// New flows per second.
    New,
    /// Packets per second.
    Packets,
    /// Bits per second.
    Bits,
    /// How long the last check took.
    Latency,
}

/// How to show a frame.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Columns.
    pub width: usize,
    /// Lines; `None`: as many as there are.
    pub height: Option<usize>,
    /// Lines of the table that are scrolled away.
    pub skipped: usize,
    /// What comes first.
    pub sort: Sort,
    /// With escape sequences of ECMA-48 for colours.
    pub colour: bool,
    /// The terminal shows UTF-8.
    pub unicode: bool,
}

/// The lines to show, without newlines: the summary, why clients are not served, then the table.
#[must_use]
pub fn screen(frame: &Frame, view: &View) -> Vec<String> {
    let mut lines = head(frame, view);
    let (heads, mut rows) = table(frame, view);
    if let Some(height) = view.height {
        let room = height.saturating_sub(lines.len() + 1);
        let skipped = view.skipped.min(rows.len().saturating_sub(room));
        rows = rows.into_iter().skip(skipped).take(room).collect();
    }
    lines.push(heads);
    lines.extend(rows);
    if let Some(height) = view.height {
        lines.truncate(height);
    }
    lines
}

fn head(frame: &Frame, view: &View) -> Vec<String> {
    let verdict = frame.verdict.map_or_else(|| "verdict unknown".to_owned(), |verdict| verdict.to_string());
    let grade = match frame.verdict {
        Some(InstanceVerdict::Serving) => Grade::Good,
        Some(InstanceVerdict::NotServing) => Grade::Bad,
        _ => Grade::Unusual,
    };
    let rest = format!("  loaded {}  up {}  generation {}", frame.version, elapsed(frame.up), frame.generation);
    let rest = cut(&rest, view.width.saturating_sub(verdict.chars().count()), view);
    let mut lines = vec![format!("{}{rest}", painted(&verdict, grade, view))];
    let rates = frame.rates;
    let sums = format!(
        "{} flows  {} new/s  {} pkt/s  {}bit/s  {} dropped/s  {} waiting",
        count(frame.flows),
        count(rates.new_flows),
        count(rates.packets),
        count(rates.bits),
        count(rates.dropped),
        count(frame.waiting),
    );
    lines.push(cut(&sums, view.width, view));
    let causes = frame.conditions.iter().filter(|condition| condition.effect != Effect::Note);
    lines.extend(causes.take(MOST_CONDITIONS).map(|condition| {
        let grade = if condition.effect == Effect::Stops { Grade::Bad } else { Grade::Unusual };
        painted(&cut(&format!("! {condition}"), view.width, view), grade, view)
    }));
    lines
}

/// The heads of the columns, and the rows.
fn table(frame: &Frame, view: &View) -> (String, Vec<String>) {
    let width = view.width.max(NARROWEST);
    let name = (width.saturating_sub(FIGURES) * 3 / 4).clamp(SHORTEST_NAME, LONGEST_NAME);
    let columns = Columns { name, trace: width.saturating_sub(FIGURES + name) };
    let heads = format!(
        "{:<name$} {:<10} {:>6} {:>6} {:>6} {:>6} {:>7}",
        "SERVICE, BACKEND", "STATE", "FLOWS", "NEW/S", "PKT/S", "BIT/S", "CHECK"
    );
    let mut services: Vec<_> = frame.services.iter().collect();
    sort(&mut services, view.sort, |(row, _)| row);
    let mut rows = Vec::new();
    for (service, backends) in services {
        rows.push(line(service, "", columns, view));
        let mut backends: Vec<_> = backends.iter().collect();
        sort(&mut backends, view.sort, |row| row);
        rows.extend(backends.into_iter().map(|backend| line(backend, "  ", columns, view)));
    }
    (cut(&heads, view.width, view), rows)
}

#[derive(Debug, Clone, Copy)]
struct Columns {
    name: usize,
    trace: usize,
}

/// One row. The state alone has a colour, so that nothing else has to be measured without its escape sequences.
fn line(row: &Row, indent: &str, columns: Columns, view: &View) -> String {
    let width = columns.name;
    let name = format!("{:<width$}", cut(&format!("{indent}{}", row.name), width, view));
    let state = format!("{:<10}", cut(&row.state, 10, view));
    let check = row.latency_us.map_or_else(|| "-".to_owned(), latency);
    let figures = format!(
        "{:>6} {:>6} {:>6} {:>6} {check:>7}",
        count(row.flows),
        count(row.rates.new_flows),
        count(row.rates.packets),
        count(row.rates.bits),
    );
    let rest = format!("{figures}  {}", trace(&row.trace, columns.trace, view));
    let rest = cut(rest.trim_end(), view.width.saturating_sub(width + 12), view);
    format!("{name} {} {rest}", painted(&state, row.grade, view)).trim_end().to_owned()
}

/// The last samples as bars, each relative to the largest of them.
fn trace(samples: &[u64], width: usize, view: &View) -> String {
    let shown = &samples[samples.len().saturating_sub(width)..];
    let most = shown.iter().copied().max().unwrap_or(0).max(1);
    let bars = if view.unicode { BARS } else { ASCII_BARS };
    let bar = |sample: &u64| {
        let step = usize::try_from(u128::from(*sample) * 7 / u128::from(most)).unwrap_or(7);
        bars.get(step).copied().unwrap_or(' ')
    };
    shown.iter().map(bar).collect()
}

fn sort<T>(rows: &mut [T], by: Sort, row: impl Fn(&T) -> &Row) {
    let figure = |row: &Row| match by {
        Sort::Config => 0,
        Sort::Flows => row.flows,
        Sort::New => row.rates.new_flows,
        Sort::Packets => row.rates.packets,
        Sort::Bits => row.rates.bits,
        Sort::Latency => row.latency_us.map_or(0, u64::from),
    };
    // Stable: what is equal stays as configured.
    rows.sort_by_key(|each| Reverse(figure(row(each))));
}

/// At most `width` characters; the last one says that there were more.
fn cut(text: &str, width: usize, view: &View) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push(if view.unicode { '…' } else { '~' });
    }
    short
}

fn painted(text: &str, grade: Grade, view: &View) -> String {
    let colour = match grade {
        Grade::Good => 32,
        Grade::Unusual => 33,
        Grade::Bad => 31,
    };
    if view.colour { format!("\x1b[{colour}m{text}\x1b[m") } else { text.to_owned() }
}
