//! YAML to JSON and back.

use saphyr::{LoadableYamlNode as _, Scalar, Yaml, YamlEmitter};
use serde_json::{Map, Number, Value};

/// The documents of a YAML text; empty ones are left out.
///
/// # Errors
/// The line and what is wrong there.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let read =
        Yaml::load_from_str(text).map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
    let mut documents = Vec::new();
    for document in read {
        match to_json(&document)? {
            Value::Null => {}
            value => documents.push(value),
        }
    }
    Ok(documents)
}

fn to_json(yaml: &Yaml<'_>) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::Number((*value).into()),
            Scalar::FloatingPoint(value) => {
                Number::from_f64(value.into_inner()).map(Value::Number).ok_or("a number is not finite")?
            }
            Scalar::String(text) => Value::String(text.to_string()),
        },
        Yaml::Sequence(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Mapping(members) => {
            let mut map = Map::new();
            for (key, value) in members {
                let key = match to_json(key)? {
                    Value::String(text) => text,
                    Value::Object(_) | Value::Array(_) => return Err("a key is no text".to_owned()),
                    other => other.to_string(),
                };
                map.insert(key, to_json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(_, inner) => to_json(inner)?,
        Yaml::Representation(text, ..) => Value::String(text.to_string()),
        Yaml::Alias(_) | Yaml::BadValue => return Err("a value cannot be read".to_owned()),
    })
}

/// A value as YAML, without the line that begins a document.
pub fn emit(value: &Value) -> String {
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    emitter.multiline(true);
    if emitter.dump(&to_yaml(value)).is_err() {
        return String::new();
    }
    let text = text.strip_prefix("---\n").unwrap_or(&text);
    format!("{}\n", text.trim_end())
}

fn to_yaml(value: &Value) -> Yaml<'static> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Yaml::Value(Scalar::Integer(whole)),
            (None, Some(number)) => Yaml::Value(Scalar::FloatingPoint(number.into())),
            (None, None) => Yaml::Value(Scalar::Null),
        },
        Value::String(text) => Yaml::Value(Scalar::String(text.clone().into())),
        Value::Array(items) => Yaml::Sequence(items.iter().map(to_yaml).collect()),
        Value::Object(members) => {
            let pair =
                |(key, value): (&String, &Value)| (Yaml::Value(Scalar::String(key.clone().into())), to_yaml(value));
            Yaml::Mapping(members.iter().map(pair).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let value = json!({"a": [1, 2.5, "x: y", null, true, "5"], "b": {"c": "line 1\nline 2\n", "d": {}, "e": []}, "on": "yes"});
        assert_eq!(documents(&emit(&value)), Ok(vec![value]));
    }

    #[test]
    fn several_documents_are_read_and_empty_ones_left_out() {
        assert_eq!(documents("a: 1\n---\n---\n{b: \"2\"}\n"), Ok(vec![json!({"a": 1}), json!({"b": "2"})]));
        assert!(documents("a: [1").is_err_and(|problem| problem.starts_with("line ")));
    }
}
