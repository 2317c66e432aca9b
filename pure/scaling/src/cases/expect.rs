//! Comparing what a case expects with what came.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// How far numbers that are no whole numbers may be apart, relative to the larger.
const TOLERANCE: f64 = 1e-9;

/// The expectations of one case, and what was not as expected.
#[derive(Debug)]
pub struct Mismatches {
    expected: Map<String, Value>,
    tolerance: f64,
    checked: BTreeSet<String>,
    problems: Vec<String>,
}

impl Mismatches {
    /// Expectations, with the relative tolerance that the case gives.
    pub fn new(expected: &Value, tolerance: Option<f64>) -> Self {
        let expected = expected.as_object().cloned().unwrap_or_default();
        Self { expected, tolerance: tolerance.unwrap_or(TOLERANCE), checked: BTreeSet::new(), problems: Vec::new() }
    }

    /// Whether the case expects an error.
    pub fn expects_error(&self) -> bool {
        self.expected.contains_key("error_contains") || self.expected.get("error") == Some(&Value::Bool(true))
    }

    /// Compares one value, if the case expects it.
    pub fn check(&mut self, name: &str, found: impl Into<Value>) {
        let found = found.into();
        let Some(expected) = self.expected.get(name) else { return };
        self.checked.insert(name.to_owned());
        if !is_equal(expected, &found, self.tolerance) {
            self.problems.push(format!("{name}: expected {expected}, found {found}"));
        }
    }

    /// Compares names whose order says nothing.
    pub fn check_set(&mut self, name: &str, found: impl Into<Value>) {
        if let Some(Value::Array(expected)) = self.expected.get_mut(name) {
            expected.sort_by_key(ToString::to_string);
        }
        let mut found = found.into();
        if let Value::Array(found) = &mut found {
            found.sort_by_key(ToString::to_string);
        }
        self.check(name, found);
    }

    /// Notes the error that came where the case expects one, or that one came where it does not.
    pub fn check_error(&mut self, message: &str) {
        self.check("error", true);
        match self.expected.get("error_contains").and_then(Value::as_str) {
            Some(part) => {
                self.checked.insert("error_contains".to_owned());
                if !message.contains(part) {
                    self.problems.push(format!("expected an error with {part:?}, found {message:?}"));
                }
            }
            None if !self.expects_error() => self.problems.push(format!("failed: {message}")),
            None => {}
        }
    }

    /// All problems; an unknown kind, an error of the case itself, and an expectation that nothing was compared with are some.
    pub(super) fn finish(mut self, kind: &str, outcome: Option<Result<(), String>>) -> Vec<String> {
        match outcome {
            None => self.problems.push(format!("unknown kind {kind:?}")),
            Some(Err(error)) => self.problems.push(error),
            Some(Ok(())) => {
                if self.expected.is_empty() {
                    self.problems.push("the case expects nothing".to_owned());
                }
                for name in self.expected.keys().filter(|name| !self.checked.contains(*name)) {
                    self.problems
                        .push(format!("{name}: expected {}, found nothing to compare it with", self.expected[name]));
                }
            }
        }
        self.problems
    }
}

fn is_equal(expected: &Value, found: &Value, tolerance: f64) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => {
            if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
                return a == b;
            }
            let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) else { return false };
            // A true value of zero is met exactly, or by noise far below any unit that is used.
            (a - b).abs() <= tolerance * a.abs().max(b.abs()) || (a == 0.0 && b.abs() < 1e-15)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|b| is_equal(value, b, tolerance)))
        }
        (a, b) => a == b,
    }
}
