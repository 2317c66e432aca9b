//! Manifests that people already have: `ScaledObject`, `ScaledJob`, `HorizontalPodAutoscaler`, `VerticalPodAutoscaler`, and what they name.
//!
//! Owns: reading YAML with one or more documents into policies, every problem at once with file, line and path. Never: filling in a value that
//! is wrong. Start with [`read`]; what reads well and is still a bad idea is found by [`crate::lint`].

pub mod adapter;
pub mod chart;
mod forecast;
mod horizontal;
mod keda;
mod place;
mod trigger;
mod vertical;
mod workload;

use std::cell::RefCell;
use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml};

pub use keda::KedaSpec;
pub use place::Problem;
pub use trigger::{TriggerSpec, scaler_types};
pub use workload::{ContainerSpec, Workload};

use crate::{hpa, vpa};
use place::{Notes, Place};

/// The largest file that is read.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// One document of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The file.
    pub file: String,
    /// Its first line, from 1.
    pub line: usize,
    /// `ScaledObject` …
    pub kind: String,
    /// `metadata.namespace`, `default` where it is not written.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Secrets that it cannot do without: where each is named, and its name.
    pub secrets: Vec<(String, String)>,
    /// Lines of paths, for findings.
    pub lines: BTreeMap<String, usize>,
    /// What it says.
    pub body: Body,
}

impl Object {
    /// The line of a path, or the object's own.
    pub fn line_of(&self, path: &str) -> usize {
        self.lines.get(path).copied().unwrap_or(self.line)
    }
}

/// The target of an autoscaler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRef {
    /// `Deployment` …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What a document says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A `ScaledObject`.
    ScaledObject {
        /// What it scales.
        target: TargetRef,
        /// The policy.
        policy: Box<crate::keda::object::Policy>,
        /// What was written.
        spec: KedaSpec,
    },
    /// A `ScaledJob`.
    ScaledJob {
        /// The policy.
        policy: Box<crate::keda::job::Policy>,
        /// What was written.
        spec: KedaSpec,
        /// What a job runs.
        workload: Workload,
    },
    /// A `HorizontalPodAutoscaler`.
    Horizontal {
        /// What it scales.
        target: TargetRef,
        /// The policy.
        policy: Box<hpa::Policy>,
    },
    /// A `VerticalPodAutoscaler`.
    Vertical {
        /// What it sizes.
        target: TargetRef,
        /// The policy.
        policy: Box<vpa::Policy>,
    },
    /// A Deployment, StatefulSet, DaemonSet or Job.
    Workload(Workload),
    /// A Service or PodDisruptionBudget: the labels that it selects by.
    Selects(BTreeMap<String, String>),
    /// Anything else.
    Other,
}

/// Reads the documents of one file.
///
/// # Errors
/// Every problem of every document, in the order of the lines.
pub fn read(file: &str, text: &str) -> Result<Vec<Object>, Vec<Problem>> {
    let notes = Notes { file: file.to_owned(), problems: RefCell::default() };
    let whole = |line, message: String| vec![Problem { file: file.to_owned(), line, path: String::new(), message }];
    if text.len() > MAX_BYTES {
        return Err(whole(1, format!("has {} bytes; at most {MAX_BYTES} are read", text.len())));
    }
    let documents: Vec<MarkedYaml<'_>> = MarkedYaml::load_from_str(text)
        .map_err(|error| whole(error.marker().line(), format!("is no YAML: {}", error.info())))?;
    let objects: Vec<Object> = documents
        .iter()
        .filter(|document| !matches!(document.data, saphyr::YamlData::Value(saphyr::Scalar::Null)))
        .filter_map(|document| read_object(&Place::root(document, &notes)))
        .collect();
    let mut problems = notes.problems.into_inner();
    if problems.is_empty() {
        return Ok(objects);
    }
    problems.sort_by_key(|problem| problem.line);
    Err(problems)
}

fn read_object(root: &Place<'_>) -> Option<Object> {
    let kind = root.need("kind").and_then(|place| place.text());
    let metadata = root.need("metadata")?;
    let name = metadata.need("name").and_then(|place| place.text());
    let kind = kind?;
    let annotations = metadata.texts_at("annotations");
    let mut lines = BTreeMap::new();
    let body = match kind.as_str() {
        "ScaledObject" => keda::scaled_object(&root.need("spec")?, &annotations, &mut lines)?,
        "ScaledJob" => keda::scaled_job(&root.need("spec")?, &annotations, &mut lines)?,
        "HorizontalPodAutoscaler" => horizontal::read(root, &annotations, &mut lines)?,
        "VerticalPodAutoscaler" => vertical::read(&root.need("spec")?, &mut lines)?,
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicaSet" => {
            Body::Workload(workload::read(&root.need("spec")?))
        }
        "Service" => Body::Selects(root.get("spec").map(|spec| spec.texts_at("selector")).unwrap_or_default()),
        "PodDisruptionBudget" => {
            let selector = root.get("spec").and_then(|spec| spec.get("selector"));
            Body::Selects(selector.map(|selector| selector.texts_at("matchLabels")).unwrap_or_default())
        }
        _ => Body::Other,
    };
    let mut secrets = Vec::new();
    if let Some(spec) = root.get("spec") {
        spec.secrets(&mut secrets, &mut lines);
    }
    Some(Object {
        file: root.notes_file(),
        line: root.line,
        kind,
        namespace: metadata.text_at("namespace").unwrap_or_else(|| "default".to_owned()),
        name: name?,
        labels: metadata.texts_at("labels"),
        annotations,
        secrets,
        lines,
        body,
    })
}

/// `scaleTargetRef` or `targetRef`.
fn target_ref(place: &Place<'_>, lines: &mut BTreeMap<String, usize>) -> Option<TargetRef> {
    place.only(&["apiVersion", "kind", "name", "envSourceContainerName"]);
    lines.insert(place.path.clone(), place.line);
    let kind = place.text_at("kind").unwrap_or_else(|| "Deployment".to_owned());
    Some(TargetRef { kind, name: place.need("name")?.text()? })
}

#[cfg(test)]
mod tests;
