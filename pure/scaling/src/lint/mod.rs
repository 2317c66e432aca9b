//! What is written correctly and is still a bad idea.
//!
//! Owns: rules over the objects of several manifests together; each finding has a rule, a place, why, and how to mend it. Never: whether a
//! manifest can be read; that is [`crate::manifest`]. Start with [`lint`].

mod events;
mod pairs;
mod promql;
mod sizes;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::manifest::{Body, Object, TargetRef, Workload};

pub use promql::{MetricType, NoQueries, Queries, QueryFacts, Selected};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It does not do what it says.
    Error,
    /// It does something that is rarely wanted.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// `kind/namespace/name`.
    pub object: String,
    /// The path inside the object.
    pub path: String,
    /// Why it is a finding.
    pub why: String,
    /// How to mend it.
    pub fix: String,
}

/// Checks objects of one or more files together, PromQL by its words alone. Findings are ordered by file, line and rule.
pub fn lint(objects: &[Object]) -> Vec<Finding> {
    lint_with(objects, &NoQueries)
}

/// The same with somebody who can read PromQL, and perhaps knows which series there are.
pub fn lint_with(objects: &[Object], queries: &dyn Queries) -> Vec<Finding> {
    let mut report = Report { findings: Vec::new() };
    for object in objects {
        events::check(object, objects, &mut report);
        promql::check(object, queries, &mut report);
        sizes::check(object, objects, &mut report);
    }
    pairs::check(objects, &mut report);
    let mut findings = report.findings;
    findings.sort_by(|a, b| (&a.file, a.line, &a.rule, &a.path).cmp(&(&b.file, b.line, &b.rule, &b.path)));
    findings.dedup();
    findings
}

struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn add(
        &mut self,
        rule: &str,
        severity: Severity,
        object: &Object,
        path: &str,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.findings.push(Finding {
            rule: rule.to_owned(),
            severity,
            file: object.file.clone(),
            line: object.line_of(path),
            object: format!("{}/{}/{}", object.kind, object.namespace, object.name),
            path: path.to_owned(),
            why: why.into(),
            fix: fix.into(),
        });
    }

    fn error(&mut self, rule: &str, object: &Object, path: &str, why: impl Into<String>, fix: impl Into<String>) {
        self.add(rule, Severity::Error, object, path, why, fix);
    }

    fn warn(&mut self, rule: &str, object: &Object, path: &str, why: impl Into<String>, fix: impl Into<String>) {
        self.add(rule, Severity::Warning, object, path, why, fix);
    }
}

/// The workload that a target names, among the objects.
fn find<'a>(objects: &'a [Object], from: &Object, target: &TargetRef) -> Option<(&'a Object, &'a Workload)> {
    objects.iter().find_map(|object| match &object.body {
        Body::Workload(workload)
            if object.kind == target.kind && object.name == target.name && object.namespace == from.namespace =>
        {
            Some((object, workload))
        }
        _ => None,
    })
}

/// Whether the manifests hold workloads at all; without any, nothing is said of missing ones.
fn has_workloads(objects: &[Object], from: &Object) -> bool {
    objects.iter().any(|object| {
        matches!(object.body, Body::Workload(_)) && object.kind != "Job" && object.namespace == from.namespace
    })
}

/// What an autoscaler scales, and where it says so.
fn target_of(object: &Object) -> Option<(&TargetRef, &'static str)> {
    match &object.body {
        Body::ScaledObject { target, .. } | Body::Horizontal { target, .. } => Some((target, "spec.scaleTargetRef")),
        Body::Vertical { target, .. } => Some((target, "spec.targetRef")),
        _ => None,
    }
}

/// Names of secrets among the objects.
fn secrets(objects: &[Object], namespace: &str) -> BTreeSet<String> {
    objects
        .iter()
        .filter(|object| object.kind == "Secret" && object.namespace == namespace)
        .map(|object| object.name.clone())
        .collect()
}

#[cfg(test)]
mod tests;
