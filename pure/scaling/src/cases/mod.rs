//! Case files: facts about decisions, run through the deciding functions alone.
//!
//! Owns: reading the schema of the committed case files (`tests/cases/`), making a policy, a state and an observation of each case, asking
//! `step` (or, for a case about one part of a decision, the part that `step` itself calls), and comparing every expected value. Never: deciding
//! anything itself. A kind or an expectation that is not known fails; it is never passed over. Start with [`run`].

mod expect;
mod hpa;
mod keda;
mod vpa;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use expect::Mismatches;

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The case's id, or its place in its list.
    pub id: String,
    /// The case's kind.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// What was not as expected; empty when it passed.
    pub problems: Vec<String>,
}

impl CaseResult {
    /// Whether everything was as expected.
    pub fn is_passed(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Runs every case of a document.
///
/// # Errors
/// A document that holds no cases: it has neither a list `cases` nor lists by kind.
pub fn run(document: &Value) -> Result<Vec<CaseResult>, String> {
    let Some(fields) = document.as_object() else {
        return Err("expected a JSON object with `cases`, or with a list of cases by kind".to_owned());
    };
    let results: Vec<CaseResult> = match fields.get("cases") {
        Some(Value::Array(cases)) => cases.iter().enumerate().map(|(index, case)| run_listed(index, case)).collect(),
        Some(_) => return Err("`cases` is no list".to_owned()),
        None => fields
            .iter()
            .filter_map(|(kind, cases)| Some((kind, cases.as_array()?)))
            .flat_map(|(kind, cases)| {
                cases.iter().enumerate().map(move |(index, case)| run_sectioned(kind, index, case))
            })
            .collect(),
    };
    if results.is_empty() {
        return Err("the document holds no case".to_owned());
    }
    Ok(results)
}

/// `{"id", "kind", "input", "expect"}`.
fn run_listed(index: usize, case: &Value) -> CaseResult {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&case["id"]).unwrap_or_else(|| index.to_string());
    let kind = text(&case["kind"]).unwrap_or_default();
    let name = text(&case["upstream"]["test"]).or_else(|| text(&case["note"])).unwrap_or_default();
    let problems = match (case.get("input"), case.get("expect")) {
        (Some(input), Some(expected)) => {
            let tolerance = case["relative_tolerance"].as_f64();
            let mut mismatches = Mismatches::new(expected, tolerance);
            let outcome = hpa::run(&kind, input, &mut mismatches)
                .or_else(|| vpa::run(&kind, input, &mut mismatches))
                .or_else(|| keda::run(&kind, case, &mut mismatches));
            mismatches.finish(&kind, outcome)
        }
        _ => vec!["the case has no `input` or no `expect`".to_owned()],
    };
    CaseResult { id, kind, name, problems }
}

/// A case in a list that is named by its kind, expectations beside its inputs.
fn run_sectioned(kind: &str, index: usize, case: &Value) -> CaseResult {
    let name = ["note", "src"].iter().find_map(|key| case[*key].as_str()).unwrap_or_default().to_owned();
    let expected = keda::expected(kind, case);
    let mut mismatches = Mismatches::new(&expected, None);
    let outcome = keda::run(kind, case, &mut mismatches);
    let problems = mismatches.finish(kind, outcome);
    CaseResult { id: format!("{kind}-{index}"), kind: kind.to_owned(), name, problems }
}

/// Words about a case that no decision depends on.
const TALK: [&str; 8] = ["note", "notes", "comment", "description", "src", "id", "name", "upstream"];

/// Fields that are not among these: a case that says what is not understood must not pass.
fn only(input: &Value, known: &[&str]) -> Result<(), String> {
    let fields = input.as_object().ok_or("the input is no object")?;
    match fields.keys().find(|name| !known.contains(&name.as_str()) && !TALK.contains(&name.as_str())) {
        Some(name) => Err(format!("input.{name}: unknown field; the fields are {}", known.join(", "))),
        None => Ok(()),
    }
}

/// A field of a case, read as `T`.
fn field<T: serde::de::DeserializeOwned>(input: &Value, name: &str) -> Result<T, String> {
    let value = input.get(name).cloned().unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|error| format!("input.{name}: {error}"))
}

/// Seconds of a case as milliseconds.
fn ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}
