//! soak.svg: what was seen, over time, with a mark for each act.

use crate::watch::{Process, ROLES, Sample, Samples};
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 46.0;
const TOP: f64 = 104.0;
const LINE: &str = "#333";
const TEXT: &str = "#222";
/// Colour of each role.
const COLOURS: [&str; 3] = ["#1b6ca8", "#c8553d", "#3d8c40"];
/// Colour of each act's mark.
const ACTS: [(&str, &str); 10] = [
    ("kill worker", "#c8553d"),
    ("stop worker", "#e39b7f"),
    ("kill supervisor", "#1b6ca8"),
    ("upgrade", "#6a4fb0"),
    ("kill prober", "#3d8c40"),
    ("reload", "#777777"),
    ("drain", "#b8860b"),
    ("disable", "#d4b24c"),
    ("backend dies", "#000000"),
    ("flood", "#d0369b"),
];

type Points = Vec<(f64, f64)>;

/// One diagram.
struct Panel {
    title: &'static str,
    /// Colour and points.
    series: Vec<(&'static str, Points)>,
    /// Draws dots, since processes come and go, and not a line.
    has_dots: bool,
}

struct Picture<'a> {
    text: String,
    acts: &'a [(f64, &'static str)],
    begin: f64,
    end: f64,
}

/// The SVG file's text.
pub(crate) fn draw(samples: &Samples, acts: &[(f64, &'static str)]) -> String {
    let at = |sample: Option<&Sample>| sample.map_or(0.0, |sample| sample.at);
    let (begin, end) = (at(samples.samples.first()), at(samples.samples.last()));
    let mut picture = Picture { text: String::new(), acts, begin, end: end.max(begin + 1.0) };
    picture.heading();
    let panels = panels(samples);
    let mut top = TOP;
    for panel in &panels {
        picture.panel(top, panel);
        top += PANEL + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" height=\"{top}\" \
         font-family=\"DejaVu Sans, sans-serif\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
        picture.text
    )
}

fn panels(samples: &Samples) -> Vec<Panel> {
    let dots = |title, roles: &[usize], column: fn(&Process) -> u64| {
        let of = |role: usize| {
            let points = samples.processes.iter().filter(|process| process.role == ROLES[role]);
            (COLOURS[role], points.map(|process| (process.at, float(column(process)))).collect())
        };
        Panel { title, series: roles.iter().map(|role| of(*role)).collect(), has_dots: true }
    };
    let line = |title, points| Panel { title, series: vec![(LINE, points)], has_dots: false };
    let flows = samples.samples.iter().map(|sample| (sample.at, float(sample.flows))).collect();
    vec![
        dots("memory (VmRSS) of each worker, kB", &[1], |process| process.resident),
        dots("memory (VmRSS) of supervisor and prober, kB", &[0, 2], |process| process.resident),
        dots("open files of each process", &[0, 1, 2], |process| process.files),
        line("answers to requests, a second", rates(samples, |sample| sample.answers)),
        line("packets decided, a second", rates(samples, |sample| sample.received)),
        line("flows, as the status has them", flows),
    ]
}

/// Rates between successive samples; times without an answer are bridged.
fn rates(samples: &Samples, column: fn(&Sample) -> u64) -> Points {
    let rate = |pair: &[Sample]| {
        let count = column(&pair[1]).saturating_sub(column(&pair[0]));
        (pair[1].at, float(count) / (pair[1].at - pair[0].at).max(0.001))
    };
    samples.samples.windows(2).map(rate).collect()
}

impl Picture<'_> {
    fn heading(&mut self) {
        let (length, acts) = (self.end - self.begin, self.acts);
        self.label((LEFT, 24.0), "start", 18, &format!("loaded, soaked for {length:.0} s, {} acts", acts.len()));
        let mut x = LEFT;
        for (role, colour) in ROLES.iter().zip(COLOURS) {
            self.put(&format!("<circle cx=\"{}\" cy=\"42\" r=\"4\" fill=\"{colour}\"/>", x + 4.0));
            self.label((x + 12.0, 46.0), "start", 12, role);
            x += 24.0 + 7.0 * float(role.len() as u64);
        }
        x = LEFT;
        for (name, colour) in ACTS {
            let count = acts.iter().filter(|(_, act)| *act == name).count();
            let label = format!("{name} ({count})");
            let mark = x + 4.0;
            self.put(&format!(
                "<path d=\"M{mark} 54v12\" stroke=\"{colour}\" stroke-width=\"3\" stroke-opacity=\"0.6\"/>"
            ));
            self.label((x + 12.0, 64.0), "start", 11, &label);
            x += 20.0 + 6.0 * float(label.len() as u64);
        }
    }

    fn panel(&mut self, top: f64, panel: &Panel) {
        let most = panel.series.iter().flat_map(|(_, points)| points).fold(1.0, |most: f64, point| most.max(point.1));
        let step = step(most);
        let ceiling = ((most / step).floor() + 1.0) * step;
        let height = |value: f64| top + PANEL - value / ceiling * PANEL;
        self.label((LEFT, top - 8.0), "start", 14, panel.title);
        let mut value = 0.0;
        while value <= ceiling {
            let y = height(value);
            self.put(&format!("<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - RIGHT));
            self.label((LEFT - 6.0, y + 4.0), "end", 12, &format!("{value}"));
            value += step;
        }
        self.marks(top);
        for (colour, points) in &panel.series {
            let places = points.iter().map(|point| (self.x(point.0), height(point.1)));
            if panel.has_dots {
                let dot = |(x, y)| format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.5\" fill=\"{colour}\"/>");
                let dots: Vec<_> = places.map(dot).collect();
                self.put(&dots.join("\n"));
            } else {
                let path: Vec<_> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                let path = path.join(" ");
                self.put(&format!(
                    "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>"
                ));
            }
        }
        self.times(top + PANEL + 15.0);
    }

    fn marks(&mut self, top: f64) {
        for (at, name) in self.acts {
            let colour = ACTS.iter().find(|(act, _)| act == name).map(|(_, colour)| colour);
            if let Some(colour) = colour.filter(|_| (self.begin..=self.end).contains(at)) {
                let x = self.x(*at);
                self.put(&format!("<path d=\"M{x:.1} {top}v{PANEL}\" stroke=\"{colour}\" stroke-opacity=\"0.35\"/>"));
            }
        }
    }

    fn times(&mut self, y: f64) {
        let length = self.end - self.begin;
        let (step, mut second) = (step(length), 0.0);
        while second <= length {
            self.label((self.x(self.begin + second), y), "middle", 12, &format!("{second} s"));
            second += step;
        }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (at - self.begin) / (self.end - self.begin) * (WIDTH - LEFT - RIGHT)
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: &str, size: u32, what: &str) {
        let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\"");
        self.put(&format!("<text {place} fill=\"{TEXT}\">{what}</text>"));
    }

    fn put(&mut self, element: &str) {
        writeln!(self.text, "{element}").unwrap();
    }
}

/// 1, 2 or 5 times a power of ten, so that there are no more than five of it.
fn step(most: f64) -> f64 {
    let mut power = 1.0;
    loop {
        if let Some(step) = [power, 2.0 * power, 5.0 * power].into_iter().find(|step| most / step <= 5.0) {
            return step;
        }
        power *= 10.0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn float(value: u64) -> f64 {
    value as f64
}

#[test]
fn steps_are_round() {
    assert_eq!([1.0, 7.0, 60.0, 3600.0, 26.0].map(step), [1.0, 2.0, 20.0, 1000.0, 10.0]);
}
