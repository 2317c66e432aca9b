//! Charts as plain SVG: lines over time, and which reasons decided when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{colour, escape};
use crate::outcome::Outcome;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
/// Room for the numbers on the left, and for the times below.
const LEFT: f64 = 48.0;
const BOTTOM: f64 = 20.0;
const TOP: f64 = 8.0;
/// Points of one line; more could not be told apart.
const MAX_POINTS: usize = 950;
/// Rows of reasons for each policy, and the height of one.
const MAX_ROWS: usize = 6;
const ROW: f64 = 15.0;

/// One line of a chart, a value for each minute.
pub(super) struct Line {
    pub colour: &'static str,
    pub is_dashed: bool,
    pub values: Vec<f64>,
}

pub(super) fn chart(page: &mut String, title: &str, unit: &str, lines: &[Line]) {
    let highest = lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
    let (top, step) = scale(highest);
    let minutes = lines.iter().map(|line| line.values.len()).max().unwrap_or(1).max(2);
    let _ = write!(
        page,
        "<h3>{title} <span class=\"note\">{unit}</span></h3><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    let height = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let mut mark = 0.0;
    while mark <= top * 1.0001 {
        let y = height(mark);
        let _ = write!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 5.0,
            y + 4.0,
            number(mark, step)
        );
        mark += step;
    }
    times(page, minutes, HEIGHT);
    for line in lines {
        let stride = line.values.len().div_ceil(MAX_POINTS).max(1);
        let dashes = if line.is_dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = write!(
            page,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" stroke-linejoin=\"round\"{dashes} points=\"",
            line.colour
        );
        for (place, part) in line.values.chunks(stride).enumerate() {
            let y = height(part.iter().copied().fold(0.0, f64::max));
            let _ = write!(page, "{:.1},{y:.1} ", x_of(place * stride, minutes));
        }
        page.push_str("\"/>");
    }
    page.push_str("</svg>");
}

/// For each policy the reasons that its changes had most often, a mark for each change.
pub(super) fn reasons_chart(page: &mut String, outcomes: &[Outcome]) {
    let minutes = outcomes.iter().map(|outcome| outcome.minutes.len()).max().unwrap_or(1).max(2);
    let rows: Vec<(usize, &str, Vec<i64>)> = outcomes
        .iter()
        .enumerate()
        .flat_map(|(index, outcome)| most_frequent(outcome).into_iter().map(move |(code, times)| (index, code, times)))
        .collect();
    if rows.is_empty() {
        return;
    }
    let whole = rows.len() as f64 * ROW + BOTTOM + TOP;
    let _ = write!(
        page,
        "<h3>Reasons <span class=\"note\">of the decisions that changed something, by policy</span></h3><svg viewBox=\"0 0 {WIDTH} {whole}\" \
         role=\"img\" aria-label=\"Reasons\">"
    );
    times(page, minutes, whole);
    for (row, (index, code, times)) in rows.iter().enumerate() {
        let y = TOP + row as f64 * ROW;
        let _ = write!(page, "<path stroke=\"{}\" stroke-width=\"1.2\" d=\"", colour(*index));
        let mut last = f64::MIN;
        for at in times {
            let x = x_of(usize::try_from(at / 60).unwrap_or(0), minutes);
            if x - last >= 0.9 {
                let _ = write!(page, "M{x:.1} {:.1}v{:.1}", y + 2.0, ROW - 5.0);
                last = x;
            }
        }
        let _ = write!(
            page,
            "\"/><text x=\"{}\" y=\"{:.1}\" style=\"fill:{};paint-order:stroke;stroke:var(--paper);stroke-width:4px\">{} × {}</text>",
            LEFT + 4.0,
            y + ROW - 4.0,
            colour(*index),
            times.len(),
            escape(code)
        );
    }
    page.push_str("</svg>");
}

fn most_frequent(outcome: &Outcome) -> Vec<(&str, Vec<i64>)> {
    let mut by_code: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for change in &outcome.changes {
        for reason in &change.reasons {
            let code = reason.split_once(':').map_or(reason.as_str(), |(code, _)| code);
            let times = by_code.entry(code).or_default();
            if times.last() != Some(&change.at_s) {
                times.push(change.at_s);
            }
        }
    }
    let mut rows: Vec<(&str, Vec<i64>)> = by_code.into_iter().collect();
    rows.sort_by_key(|(code, times)| (std::cmp::Reverse(times.len()), *code));
    rows.truncate(MAX_ROWS);
    rows
}

fn x_of(minute: usize, minutes: usize) -> f64 {
    LEFT + minute as f64 / (minutes - 1) as f64 * (WIDTH - LEFT)
}

/// Marks below: minutes, hours or days, whichever gives a readable number of them.
fn times(page: &mut String, minutes: usize, height: f64) {
    const STEPS: [(usize, usize, &str); 12] = [
        (5, 1, "min"),
        (10, 1, "min"),
        (30, 1, "min"),
        (60, 60, "h"),
        (120, 60, "h"),
        (240, 60, "h"),
        (480, 60, "h"),
        (1440, 1440, "d"),
        (2880, 1440, "d"),
        (10_080, 1440, "d"),
        (43_200, 1440, "d"),
        (129_600, 1440, "d"),
    ];
    let (step, unit, name) = STEPS.into_iter().find(|(step, ..)| minutes / step <= 12).unwrap_or((129_600, 1440, "d"));
    for minute in (0..minutes).step_by(step).skip(1) {
        let x = x_of(minute, minutes);
        let _ = write!(
            page,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{} {name}</text>",
            height - BOTTOM,
            height - 5.0,
            minute / unit
        );
    }
}

/// The top of the axis and the distance of its marks: 1, 2 or 5 times a power of ten.
fn scale(highest: f64) -> (f64, f64) {
    let wanted = (highest / 4.0).max(0.25);
    let power = 10_f64.powf(wanted.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= wanted);
    let step = step.unwrap_or(10.0 * power);
    ((highest / step).ceil().max(1.0) * step, step)
}

fn number(value: f64, step: f64) -> String {
    if step >= 1.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
