//! Memory and open files of each role between two times: neither may grow.

use super::Report;
use crate::watch::{Process, ROLES, Samples};
use std::collections::BTreeMap;

/// The most that a straight line fitted to the second half may rise by, in kB. Processes are replaced all the time, and
/// have not all touched the same pages: some hundred kB of noise. An hour shows a leak of 300 bytes a second.
const TREND: f64 = 512.0;
/// The most by which the last tenth's median may exceed the first tenth's, in kB, as in the flood's test.
const GROWTH: f64 = 2048.0;
/// Seconds of a soak that has too few lives for a line: a supervisor that has loaded the kernel program keeps 2.5 MB more than one
/// that was handed it, and by chance the last ones are of one kind.
const SHORT: f64 = 600.0;
/// The most that such a line may rise by for open files.
const FILES: f64 = 2.0;
/// Seconds since its first sample in which a process may not have opened all its files yet, nor touched all its memory.
/// One that is seen as it starts shows a tenth of it: a few of those in a minute's soak look like a leak.
const YOUNG: f64 = 3.0;

/// Time in seconds, and value.
type Point = (f64, f64);

/// Judges the samples from `warm` to `over`, in seconds.
pub(crate) fn judge(samples: &Samples, warm: f64, over: f64, report: &mut Report) {
    for role in ROLES {
        let mut resident = by_look(grown_up(&samples.processes), role, |process| process.resident);
        if over - warm < SHORT {
            few_lives(role, &resident, warm, over, report);
        } else {
            resident.retain(|point| (warm..=over).contains(&point.0));
            memory(role, &resident, warm, over, report);
        }
        // Up to the end of the watch, quiet time included.
        files(role, &by_look(grown_up(&samples.processes), role, |process| process.files), warm, over, report);
    }
    let falls = samples.samples.windows(2).filter(|pair| pair[1].received < pair[0].received).count();
    let (packets, looks) = (samples.samples.last().map_or(0, |sample| sample.received), samples.samples.len());
    let text = format!("counters never go back: {packets} packets in {looks} looks, {falls} falls");
    report.verdict(falls == 0 && packets > 0, &text);
}

/// The last tenth against the most of the first half and the warm-up, in which there is a process of each kind.
fn few_lives(role: &str, points: &[Point], warm: f64, over: f64, report: &mut Report) {
    let (half, tenth) = (warm + (over - warm) / 2.0, (over - warm) / 10.0);
    let early = points.iter().filter(|point| point.0 <= half).map(|point| point.1).reduce(f64::max);
    let late = points.iter().filter(|point| (over - tenth..=over).contains(&point.0)).map(|point| point.1).collect();
    let last = median(late).or_else(|| Some(points.last()?.1));
    let (Some(early), Some(last)) = (early, last) else {
        return report.verdict(false, &format!("memory of {role}: none was seen"));
    };
    report.verdict(
        last - early <= TREND,
        &format!("memory of {role}: at most {early} kB in the first half, {last} kB at the end (at most {TREND} more)"),
    );
}

fn memory(role: &str, points: &[Point], warm: f64, over: f64, report: &mut Report) {
    let tenth = (over - warm) / 10.0;
    let of = |is_in: &dyn Fn(f64) -> bool| points.iter().filter(|point| is_in(point.0)).map(|point| point.1).collect();
    // A short soak may have no look in so short a time.
    let first = median(of(&|at| at <= warm + tenth)).or_else(|| Some(points.first()?.1));
    let last = median(of(&|at| at >= over - tenth)).or_else(|| Some(points.last()?.1));
    let (Some(first), Some(last)) = (first, last) else {
        return report.verdict(false, &format!("memory of {role}: none was seen"));
    };
    let rise = rise(points, warm, over);
    report.verdict(
        rise <= TREND && last - first <= GROWTH,
        &format!(
            "memory of {role}: {first} kB after the warm-up, {last} kB at the end; trend of the second half {rise:+.0} kB \
             (at most {TREND}, growth {GROWTH})"
        ),
    );
}

fn files(role: &str, points: &[Point], warm: f64, over: f64, report: &mut Report) {
    let late = second_half(points, warm, over);
    let values = || late.iter().map(|point| point.1);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let text = format!("open files of {role}: {least} to {most} in the second half, without a trend");
    report.verdict(!late.is_empty() && rise(points, warm, over) <= FILES, &text);
}

/// The largest value in each sample: the sum would depend on how many processes there are at that moment.
fn by_look<'a>(
    processes: impl IntoIterator<Item = &'a Process>,
    role: &str,
    column: fn(&Process) -> u64,
) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for process in processes.into_iter().filter(|process| process.role == role) {
        let value = f64::from(u32::try_from(column(process)).unwrap());
        match points.last_mut() {
            // Exactly: it is the same look.
            Some(last) if last.0.to_bits() == process.at.to_bits() => last.1 = last.1.max(value),
            _ => points.push((process.at, value)),
        }
    }
    points
}

/// Samples of processes that are no longer young.
fn grown_up(processes: &[Process]) -> impl Iterator<Item = &Process> {
    let mut first = BTreeMap::new();
    processes.iter().filter(move |process| process.at - *first.entry(process.pid).or_insert(process.at) >= YOUNG)
}

fn second_half(points: &[Point], warm: f64, over: f64) -> Vec<Point> {
    let half = warm + (over - warm) / 2.0;
    points.iter().copied().filter(|point| point.0 >= half).collect()
}

/// Rise of a straight line fitted to the second half, from its beginning to its end.
fn rise(points: &[Point], warm: f64, over: f64) -> f64 {
    slope(&second_half(points, warm, over)) * (over - warm) / 2.0
}

/// Slope of the least-squares line; 0 if there is none.
fn slope(points: &[Point]) -> f64 {
    let count = f64::from(u32::try_from(points.len().max(1)).unwrap());
    let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (at, value) = (mean(|point| point.0), mean(|point| point.1));
    let square: f64 = points.iter().map(|point| (point.0 - at).powi(2)).sum();
    if square > 0.0 { points.iter().map(|point| (point.0 - at) * (point.1 - value)).sum::<f64>() / square } else { 0.0 }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Failed checks over 100 looks, one every `step` seconds, with this memory, in kB, and these open files at each. Processes are
/// replaced every `life` looks.
#[cfg(test)]
fn failures((step, life): (f64, u32), memory: impl Fn(u32) -> u64, files: impl Fn(u32) -> u64) -> usize {
    use crate::watch::Sample;
    let mut samples = Samples::default();
    for look in 0..100 {
        let at = f64::from(look) * step;
        for (pid, role) in (1 + look / life * 10..).zip(ROLES) {
            let (resident, files) = (memory(look), files(look));
            samples.processes.push(Process { at, role, pid, resident, anonymous: 0, shared: 0, files });
        }
        let received = u64::from(look) + 1;
        samples.samples.push(Sample { at, generation: 1, waiting: 0, received, flows: 0, answers: 0, dropped: 0 });
    }
    let mut report = Report::default();
    judge(&samples, 10.0 * step, 90.0 * step, &mut report);
    report.failed().len()
}

#[cfg(test)]
const LONG: (f64, u32) = (10.0, 100);

#[test]
fn noise_is_no_trend() {
    assert_eq!(failures(LONG, |look| 5000 + u64::from(look % 7) * 40, |look| 30 + u64::from(look % 3)), 0);
}

#[test]
fn a_slow_leak_is_a_trend() {
    assert_eq!(failures(LONG, |look| 5000 + u64::from(look) * 14, |_| 30), 3);
    assert_eq!(failures(LONG, |_| 5000, |look| 30 + u64::from(look) / 10), 3);
}

#[test]
fn what_grew_before_is_growth() {
    assert_eq!(failures(LONG, |look| if look < 40 { 5000 } else { 7100 }, |_| 30), 3);
}

#[test]
fn a_short_soak_takes_no_kind_of_start_for_a_leak() {
    let kinds = |look: u32| if (look / 20).is_multiple_of(2) { 7600 } else { 5000 };
    assert_eq!(failures((1.0, 20), kinds, |_| 30), 0);
    let starts = |look| if look % 13 < 3 { 500 } else { 5000 };
    assert_eq!(failures((1.0, 13), starts, |_| 30), 0);
    assert_eq!(failures((1.0, 100), |look| 5000 + u64::from(look) * 20, |_| 30), 3);
}
