//! Changes to objects: merge patches, and applying a manifest beside what others set.

use serde_json::{Map, Value};

/// RFC 7396: members of the patch replace, `null` removes.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Kubernetes's strategic merge: as a merge patch, but lists of things with a name are merged by it.
pub fn strategic_merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(members) = target else { return };
            for (name, value) in patch {
                if value.is_null() {
                    members.remove(name);
                } else {
                    strategic_merge(members.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        Value::Array(items)
            if !items.is_empty() && items.iter().all(|item| item.get("name").is_some_and(Value::is_string)) =>
        {
            if !target.is_array() {
                *target = Value::Array(Vec::new());
            }
            let Value::Array(known) = target else { return };
            for item in items {
                let same = known.iter_mut().find(|known| known.get("name") == item.get("name"));
                match same {
                    _ if item.get("$patch").and_then(Value::as_str) == Some("delete") => {
                        known.retain(|known| known.get("name") != item.get("name"));
                    }
                    Some(same) => strategic_merge(same, item),
                    None => known.push(item.clone()),
                }
            }
        }
        other => *target = other.clone(),
    }
}

/// Applies `wanted`: what the last application had and this one lacks goes, what it has is set, and everything else, as others set it, stays.
pub fn apply(live: &mut Value, last: Option<&Value>, wanted: &Value) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            if let Some(Value::Object(last)) = last {
                live.retain(|name, _| !last.contains_key(name) || wanted.contains_key(name));
            }
            for (name, value) in wanted {
                let before = last.and_then(|last| last.get(name));
                match live.get_mut(name) {
                    Some(there) => apply(there, before, value),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (live, wanted) => *live = wanted.clone(),
    }
}

/// RFC 6902.
///
/// # Errors
/// The operation that cannot be done, and why.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(operations) = patch else { return Err("a JSON patch is a list of operations".to_owned()) };
    for (index, operation) in operations.iter().enumerate() {
        one_operation(target, operation).map_err(|problem| format!("operation {index}: {problem}"))?;
    }
    Ok(())
}

fn one_operation(target: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = text("path").ok_or("has no path")?;
    let value = || operation.get("value").cloned().ok_or("has no value");
    match text("op") {
        Some("add") => add(target, path, value()?),
        Some("replace") => target
            .pointer_mut(path)
            .map(|at| *at = operation.get("value").cloned().unwrap_or_default())
            .ok_or_else(|| format!("there is nothing at {path}")),
        Some("remove") => remove(target, path).map(|_| ()),
        Some("test") => match target.pointer(path) {
            Some(found) if *found == value()? => Ok(()),
            found => Err(format!("at {path} stands {}", found.map_or("nothing".to_owned(), Value::to_string))),
        },
        Some("move") => {
            let moved = remove(target, text("from").ok_or("has no from")?)?;
            add(target, path, moved)
        }
        Some("copy") => {
            let from = text("from").ok_or("has no from")?;
            let copied = target.pointer(from).cloned().ok_or_else(|| format!("there is nothing at {from}"))?;
            add(target, path, copied)
        }
        other => Err(format!("op {other:?} is none of add, replace, remove, test, move, copy")),
    }
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (up, name) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is no path"))?;
    let parent = target.pointer_mut(up).ok_or_else(|| format!("there is nothing at {up}"))?;
    Ok((parent, name.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(members), name) => {
            members.insert(name, value);
            Ok(())
        }
        (Value::Array(items), name) => {
            let index =
                if name == "-" { items.len() } else { name.parse().map_err(|_| format!("{name:?} is no index"))? };
            if index > items.len() {
                return Err(format!("index {index} is beyond {}", items.len()));
            }
            items.insert(index, value);
            Ok(())
        }
        _ => Err(format!("{path} leads into no object or list")),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let nothing = || format!("there is nothing at {path}");
    match parent(target, path)? {
        (Value::Object(members), name) => members.remove(&name).ok_or_else(nothing),
        (Value::Array(items), name) => {
            let index: usize = name.parse().map_err(|_| nothing())?;
            if index < items.len() { Ok(items.remove(index)) } else { Err(nothing()) }
        }
        _ => Err(nothing()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_set_outlives_an_application() {
        let mut live = json!({"spec": {"replicas": 7, "old": 1, "kept": {"a": 1, "b": 2}}});
        let last = json!({"spec": {"old": 1, "kept": {"a": 1}}});
        apply(&mut live, Some(&last), &json!({"spec": {"kept": {"c": 3}, "list": [1]}}));
        assert_eq!(live, json!({"spec": {"replicas": 7, "kept": {"b": 2, "c": 3}, "list": [1]}}));
    }

    #[test]
    fn lists_of_names_are_merged_by_name() {
        let mut live =
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]});
        strategic_merge(
            &mut live,
            &json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}, {"name": "b", "$patch": "delete"}]}),
        );
        assert_eq!(
            live,
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]})
        );
    }

    #[test]
    fn a_json_patch_is_done_whole_or_says_what_cannot_be() {
        let mut live = json!({"a": [1, 2], "b": {"c/d": 1}});
        let patch = json!([{"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/b/c~1d"}, {"op": "move", "from": "/a/0", "path": "/b/x"}]);
        assert_eq!(json_patch(&mut live, &patch), Ok(()));
        assert_eq!(live, json!({"a": [2, 3], "b": {"x": 1}}));
        let problem =
            json_patch(&mut live, &json!([{"op": "replace", "path": "/no", "value": 1}])).expect_err("nothing there");
        assert_eq!(problem, "operation 0: there is nothing at /no");
    }
}
