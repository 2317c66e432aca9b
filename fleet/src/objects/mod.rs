//! What was applied: objects as Kubernetes writes them.
//!
//! Owns: the shape of an object, the kinds that are known, labels and their selectors, validation before anything is stored. Never: storage, or
//! carrying anything out. Start with [`Object`] and [`Kind`].

mod kind;
mod selector;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use kind::{KINDS, Kind, find_kind, kind_of};
pub use selector::{LabelSelector, SelectorError};
pub(crate) use validate::decode_base64;
pub use validate::{FieldProblem, validate};

/// The key by which an object is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// `Deployment` …
    pub kind: String,
    /// Its namespace; empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object: typed metadata, and a body as it was written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// `apps/v1` …
    #[serde(default)]
    pub api_version: String,
    /// `Deployment` …
    #[serde(default)]
    pub kind: String,
    /// Who it is.
    #[serde(default)]
    pub metadata: Metadata,
    /// `spec`, `status`, `data` … as they were written.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}

/// Who an object is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name, unique among its kind and namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The start of a name to be made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Its namespace; empty for kinds without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// By which it is told from an earlier object of the same name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The change that made it what it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of `spec`, from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// When it was created, RFC 3339 in UTC to the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Since when it is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "map_or_null")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "map_or_null")]
    pub annotations: BTreeMap<String, String>,
    /// Whose part it is; it goes with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Anything else that was written.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An owner of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// `apps/v1` …
    #[serde(default)]
    pub api_version: String,
    /// `Deployment` …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it is the one that manages the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// `labels: null` is written as often as no labels.
fn map_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::<BTreeMap<String, String>>::deserialize(from)?.unwrap_or_default())
}

impl Object {
    /// An object without a body.
    pub fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        Self {
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            metadata: Metadata {
                name: name.to_owned(),
                namespace: if kind.is_namespaced { namespace.to_owned() } else { String::new() },
                ..Metadata::default()
            },
            body: Map::new(),
        }
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.kind, &self.metadata.namespace, &self.metadata.name)
    }

    /// What stands at a path of names, as `/spec/replicas`.
    pub fn at(&self, path: &str) -> Option<&Value> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let mut value = self.body.get(names.next()?)?;
        for name in names {
            value = match value {
                Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
                other => other.get(name)?,
            };
        }
        Some(value)
    }

    /// The text at a path.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.at(path)?.as_str()
    }

    /// The whole number at a path.
    pub fn whole(&self, path: &str) -> Option<i64> {
        self.at(path)?.as_i64()
    }

    /// Sets `spec` or `status`'s member.
    pub fn set(&mut self, section: &str, name: &str, value: Value) {
        let section = self.body.entry(section.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(members) = section {
            members.insert(name.to_owned(), value);
        }
    }

    /// `spec.replicas`, 1 where it is not said.
    pub fn replicas(&self) -> i32 {
        self.whole("/spec/replicas").and_then(|value| i32::try_from(value).ok()).unwrap_or(1)
    }

    /// The labels that its pod template gives.
    pub fn template_labels(&self) -> BTreeMap<String, String> {
        texts(self.at("/spec/template/metadata/labels"))
    }

    /// Whether it is owned by this uid.
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.metadata.owner_references.iter().any(|owner| owner.uid == uid)
    }

    /// A reference to it, for what it owns.
    pub fn as_owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            controller: Some(true),
        }
    }

    /// When it was created.
    pub fn created_at(&self) -> Option<jiff::Timestamp> {
        self.metadata.creation_timestamp.as_deref()?.parse().ok()
    }
}

/// The members of a mapping that are texts.
pub fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// A time as objects write it.
pub fn time_text(at: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_second()).map_or_else(|_| at.to_string(), |whole| whole.to_string())
}
