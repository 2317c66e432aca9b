//! The value of a query for people and programs: a table, JSON, CSV, or a chart of each series.

use serde_json::Value;
use tidemill_eval::Labels;

use crate::error::Result;
use crate::output::{Output, Table, print, print_text};

/// The letters of a chart, from the lowest to the highest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a chart.
const CHART_COLUMNS: usize = 60;

/// Prints the `data` of an answer.
///
/// # Errors
/// stdout does not take it.
pub fn print_value(data: &Value, output: Output, is_chart: bool) -> Result<()> {
    if is_chart {
        return print_text(&charts(data));
    }
    print(output, data, table)
}

/// The text of one sample.
fn sample_text(sample: &Value) -> String {
    match sample {
        Value::String(text) => text.clone(),
        histogram => format!(
            "count {}, sum {}",
            histogram["count"].as_str().unwrap_or_default(),
            histogram["sum"].as_str().unwrap_or_default()
        ),
    }
}

fn time_text(time: &Value) -> String {
    let milliseconds = (time.as_f64().unwrap_or_default() * 1e3).round() as i64;
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(|_| time.to_string(), |time| time.to_string())
}

fn series_name(metric: &Value) -> String {
    let pairs =
        metric.as_object().into_iter().flatten().map(|(name, value)| (name, value.as_str().unwrap_or_default()));
    Labels::of(pairs).to_string()
}

fn samples_of<'a>(series: &'a Value, names: &'a [&'a str]) -> impl Iterator<Item = &'a Value> {
    names.iter().flat_map(|name| series[*name].as_array().into_iter().flatten())
}

fn table(data: &Value) -> Table {
    let mut table = Table::new(&["SERIES", "TIME", "VALUE"]);
    let mut row = |name: String, sample: &Value| table.row(vec![name, time_text(&sample[0]), sample_text(&sample[1])]);
    match data["resultType"].as_str() {
        Some("vector") => {
            for series in data["result"].as_array().into_iter().flatten() {
                let sample = if series["value"].is_null() { &series["histogram"] } else { &series["value"] };
                row(series_name(&series["metric"]), sample);
            }
        }
        Some("matrix") => {
            for series in data["result"].as_array().into_iter().flatten() {
                let name = series_name(&series["metric"]);
                samples_of(series, &["values", "histograms"]).for_each(|sample| row(name.clone(), sample));
            }
        }
        _ => row(String::new(), &data["result"]),
    }
    table
}

fn charts(data: &Value) -> String {
    let mut text = String::new();
    for series in data["result"].as_array().into_iter().flatten() {
        let numbers: Vec<(f64, f64)> = samples_of(series, &["values"])
            .filter_map(|sample| Some((sample[0].as_f64()?, sample[1].as_str()?.parse().ok()?)))
            .collect();
        text.push_str(&series_name(&series["metric"]));
        text.push('\n');
        text.push_str(&chart(&numbers));
    }
    if text.is_empty() { "no series\n".to_owned() } else { text }
}

/// One line of bars; the scale is told beside it. A column without a sample is empty.
fn chart(numbers: &[(f64, f64)]) -> String {
    let finite = || numbers.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return "  no numbers\n".to_owned() };
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let mut columns = vec![None::<f64>; CHART_COLUMNS];
    let length = (last.0 - first.0).max(f64::MIN_POSITIVE);
    for (time, value) in numbers.iter().filter(|(_, value)| value.is_finite()) {
        let at = ((time - first.0) / length * (CHART_COLUMNS - 1) as f64).round() as usize;
        let column = &mut columns[at.min(CHART_COLUMNS - 1)];
        *column = Some(column.map_or(*value, |known| known.max(*value)));
    }
    let bar = |value: f64| {
        let part = if high > low { (value - low) / (high - low) } else { 0.0 };
        BARS[(part * (BARS.len() - 1) as f64).round() as usize]
    };
    let line: String = columns.into_iter().map(|column| column.map_or(' ', bar)).collect();
    format!("  {line}  {} to {}, last {}\n", short(low), short(high), short(last.1))
}

fn short(value: f64) -> String {
    tidemill_eval::format_number((value * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn series_are_drawn_on_their_own_scale() {
        let values: Vec<Value> = (0..3).map(|step| json!([step * 60, (step * 2).to_string()])).collect();
        let drawn =
            charts(&json!({ "resultType": "matrix", "result": [{ "metric": { "__name__": "a" }, "values": values }] }));
        assert!(drawn.starts_with("a\n  ▁") && drawn.contains('▅') && drawn.contains("█  0 to 4, last 4"), "{drawn}");
        assert_eq!(charts(&json!({ "resultType": "matrix", "result": [] })), "no series\n");
    }

    #[test]
    fn every_kind_of_value_becomes_rows() {
        let vector = json!({ "resultType": "vector", "result": [{ "metric": { "a": "b" }, "value": [1.5, "2"] }] });
        let text = table(&vector).render();
        assert!(text.contains("{a=\"b\"}") && text.contains("1970-01-01T00:00:01.5Z"), "{text}");
        assert!(table(&json!({ "resultType": "scalar", "result": [0, "7"] })).render().contains('7'));
    }
}
