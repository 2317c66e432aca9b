//! Series as charts of letters: one line of bars for each.

use serde_json::Value;

use super::lines::{labels_text, time_text};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Bars of one chart.
const WIDTH: usize = 80;

/// The chart of an answer with numbers.
pub fn render(data: &Value) -> String {
    let series: Vec<(String, Vec<(f64, f64)>)> = data["result"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|series| {
            let points = series["values"].as_array().into_iter().flatten();
            let points = points.filter_map(|value| Some((value[0].as_f64()?, value[1].as_str()?.parse().ok()?)));
            (labels_text(&series["metric"]), points.collect())
        })
        .collect();
    let times = || series.iter().flat_map(|(_, points)| points.iter().map(|point| point.0));
    let (first, last) = (times().fold(f64::INFINITY, f64::min), times().fold(f64::NEG_INFINITY, f64::max));
    if !first.is_finite() {
        return "no series\n".to_owned();
    }
    let at = |seconds: f64| time_text((seconds * 1e3) as i64 * 1_000_000);
    let mut text = format!("{} to {}\n", at(first), at(last));
    for (labels, points) in &series {
        let values = || points.iter().map(|point| point.1).filter(|value| value.is_finite());
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let width = ((last - first).max(1.0)) / WIDTH as f64;
        // Each place shows the greatest value in it, so that a peak is never left out.
        let mut places = [f64::NAN; WIDTH];
        for (seconds, value) in points {
            let place = (((seconds - first) / width) as usize).min(WIDTH - 1);
            places[place] = places[place].max(*value);
        }
        let top = most.max(0.0);
        let bottom = least.min(0.0);
        let bar = |value: f64| {
            if value.is_nan() {
                return ' ';
            }
            let share = if top > bottom { (value - bottom) / (top - bottom) } else { 0.0 };
            BARS[((share * 7.0).round() as usize).min(7)]
        };
        let bars: String = places.iter().map(|value| bar(*value)).collect();
        let last = points.last().map_or(f64::NAN, |point| point.1);
        text.push_str(&format!("{labels}\n  {bars}  last {last}, least {least}, most {most}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_shown() {
        let values: Vec<Value> = (0..200).map(|at| serde_json::json!([at, if at == 77 { "8" } else { "1" }])).collect();
        let text = render(&serde_json::json!({ "result": [{ "metric": { "a": "b" }, "values": values }] }));
        assert!(text.contains("{a=\"b\"}") && text.contains('█') && text.contains("most 8"), "{text}");
        assert_eq!(text.matches('█').count(), 1);
        assert_eq!(render(&serde_json::json!({ "result": [] })), "no series\n");
    }
}
