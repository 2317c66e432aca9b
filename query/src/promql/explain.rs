//! What a query reads, in words.

use tidemill_eval::Result;
use tidemill_eval::promql::{Engine, Select};

use super::PromqlRequest;
use super::answer::evaluate;
use super::rollups::tier_of;
use super::source::Recorder;

/// What a query reads: each selector with its time, whether rollups may stand in for points, and which parts are evaluated in
/// divisions of the series.
///
/// # Errors
/// The query is wrong.
pub fn explain(request: &PromqlRequest) -> Result<String> {
    let tree = tidemill_lang::promql::parse(&request.query)?;
    let mut text = format!("query     {tree}\ngives     {}\n", tree.value_type());
    let (engine, recorder) = (Engine::default(), Recorder::default());
    // What is wrong beyond the text is told by the evaluation itself.
    drop(evaluate(&engine, request, &recorder));
    for select in recorder.asked() {
        text.push_str(&format!("reads     {}\n", read(&select)));
    }
    match engine.tasks(&request.query, (request.start_ms, request.end_ms, request.step_ms)) {
        Ok(tasks) => {
            for task in tasks {
                let part = request.query.get(task.span.start..task.span.end).unwrap_or_default();
                text.push_str(&format!("divisible {part} ({:?})\n", task.kind));
            }
        }
        Err(error) => text.push_str(&format!("whole     {error}\n")),
    }
    Ok(text)
}

fn read(select: &Select) -> String {
    let conditions: Vec<String> = select.matchers.iter().map(ToString::to_string).collect();
    let source = match &select.windows {
        None => "points".to_owned(),
        Some(windows) => match tier_of(windows) {
            Some(tier) => {
                format!("rollups of {} s for the hours that have them, else points ({:?})", tier.0, windows.function)
            }
            None => format!(
                "points: start {} s, step {} s and range {} s fit no rollup",
                windows.first_end_ms as f64 / 1e3,
                windows.step_ms as f64 / 1e3,
                windows.range_ms as f64 / 1e3
            ),
        },
    };
    let (start, end) = (select.start_ms as f64 / 1e3, select.end_ms as f64 / 1e3);
    format!("{{{}}} from {start} to {end}: {source}", conditions.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_are_told_where_they_fit() {
        let told = |query: &str, start_ms| {
            let end_ms = start_ms + 7_200_000;
            let request =
                PromqlRequest { query: query.to_owned(), start_ms, end_ms, step_ms: 60_000, lookback_ms: None };
            explain(&request).expect("a query")
        };
        let query = r#"sum by (job) (rate(requests_total{job!="x",a=~"b.*"}[5m])) / sum(up)"#;
        let shown = told(query, 1_700_000_040_000);
        let rolled = r#"reads     {__name__="requests_total", a=~"b.*", job!="x"} from 1699999740.001 to 1700007240: rollups of 60 s"#;
        assert!(shown.contains(rolled), "{shown}");
        assert!(shown.contains(r#"{__name__="up"} from 1699999740.001 to 1700007240: points"#), "{shown}");
        assert!(shown.contains("divisible sum by (job)"), "{shown}");
        assert!(told(query, 1_700_000_043_000).contains("fit no rollup"), "a start between windows");
        assert!(
            explain(&PromqlRequest { query: "sum(".to_owned(), start_ms: 0, end_ms: 0, step_ms: 0, lookback_ms: None })
                .is_err()
        );
    }
}
