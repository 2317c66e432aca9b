//! The environment of a container: values, references, `$(NAME)`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::objects::{Object, ObjectKey};
use crate::storage::Storage;

/// Something that a container refers to and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// What is missing, and how to add it.
    pub what: String,
}

impl Missing {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// What `fieldRef`s may name.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// By their paths: `metadata.name` …
    pub values: BTreeMap<String, String>,
}

/// The variables of a container, in the order in which it names them: `envFrom` first, then `env`, whose `$(NAME)` may refer to what is before it.
pub fn environment(
    container: &Value,
    namespace: &str,
    storage: &Storage,
    fields: &Fields,
    before: BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Vec<Missing>) {
    let mut env = before;
    let mut missing = Vec::new();
    for source in items(container, "envFrom") {
        let prefix = source.get("prefix").and_then(Value::as_str).unwrap_or_default();
        for (kind, field) in [("ConfigMap", "configMapRef"), ("Secret", "secretRef")] {
            let Some(reference) = source.get(field) else { continue };
            match named(reference, kind, namespace, storage) {
                Ok(Some(object)) => {
                    env.extend(contents(&object).into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)))
                }
                Ok(None) => {}
                Err(problem) => missing.push(problem),
            }
        }
    }
    for variable in items(container, "env") {
        let Some(name) = variable.get("name").and_then(Value::as_str) else { continue };
        let value = match (variable.get("value").and_then(Value::as_str), variable.get("valueFrom")) {
            (_, Some(from)) => match referred(from, container, namespace, storage, fields) {
                Ok(value) => value,
                Err(problem) => {
                    missing.push(Missing::new(format!("{name}: {}", problem.what)));
                    continue;
                }
            },
            (Some(text), None) => Some(expand(text, &env)),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(name.to_owned(), value);
        }
    }
    (env, missing)
}

fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn named(
    reference: &Value,
    kind: &str,
    namespace: &str,
    storage: &Storage,
) -> Result<Option<std::sync::Arc<Object>>, Missing> {
    let name = reference.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_optional = reference.get("optional").and_then(Value::as_bool).unwrap_or(false);
    match storage.get(&ObjectKey::new(kind, namespace, name)) {
        Some(object) => Ok(Some(object)),
        None if is_optional => Ok(None),
        None => Err(Missing::new(format!("there is no {kind} {name} in namespace {namespace}; apply it"))),
    }
}

/// The value that `valueFrom` refers to; `None` where it is optional and not there.
fn referred(
    from: &Value,
    container: &Value,
    namespace: &str,
    storage: &Storage,
    fields: &Fields,
) -> Result<Option<String>, Missing> {
    for (kind, field) in [("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")] {
        let Some(reference) = from.get(field) else { continue };
        let Some(object) = named(reference, kind, namespace, storage)? else { return Ok(None) };
        let key = reference.get("key").and_then(Value::as_str).unwrap_or_default();
        let is_optional = reference.get("optional").and_then(Value::as_bool).unwrap_or(false);
        return match contents(&object).remove(key) {
            Some(value) => Ok(Some(value)),
            None if is_optional => Ok(None),
            None => {
                Err(Missing::new(format!("{kind} {} in namespace {namespace} has no key {key}", object.metadata.name)))
            }
        };
    }
    if let Some(path) = from.get("fieldRef").and_then(|field| field.get("fieldPath")).and_then(Value::as_str) {
        let found = fields.values.get(path).cloned();
        return found.map(Some).ok_or_else(|| Missing::new(format!("fieldPath {path} has no meaning here")));
    }
    if let Some(resource) = from.get("resourceFieldRef").and_then(|field| field.get("resource")).and_then(Value::as_str)
    {
        let (section, name) = resource.split_once('.').unwrap_or(("", resource));
        let amount = container
            .get("resources")
            .and_then(|resources| resources.get(section))
            .and_then(|amounts| amounts.get(name));
        let text = amount.map(|amount| amount.as_str().map_or_else(|| amount.to_string(), ToOwned::to_owned));
        let milli = text.and_then(|text| tidemill_scaling::quantity::parse_milli(&text).ok());
        // Cores are rounded up, bytes are whole, as Kubernetes does it with a divisor of 1.
        return milli
            .map(|milli| Some(((milli + 999) / 1000).to_string()))
            .ok_or_else(|| Missing::new(format!("the container says no {resource}")));
    }
    Err(Missing::new("valueFrom names none of secretKeyRef, configMapKeyRef, fieldRef, resourceFieldRef"))
}

/// What a Secret or ConfigMap holds, as text.
pub fn contents(object: &Object) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (section, is_encoded) in [("data", object.kind == "Secret"), ("binaryData", true), ("stringData", false)] {
        for (key, text) in crate::objects::texts(object.body.get(section)) {
            let value = if is_encoded {
                crate::objects::decode_base64(&text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            } else {
                Some(text)
            };
            found.extend(value.map(|value| (key, value)));
        }
    }
    found
}

/// `$(NAME)` becomes the variable's value where there is one and stays as it is where there is none; `$$` is one dollar.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_dollars_are_replaced_as_kubernetes_does_it() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, shown) in
            [("$(A)$(A)", "11"), ("$$(A)", "$(A)"), ("$(B) $A $", "$(B) $A $"), ("a$(A", "a$(A"), ("$$$(A)", "$1")]
        {
            assert_eq!(expand(text, &env), shown, "{text}");
        }
    }
}
