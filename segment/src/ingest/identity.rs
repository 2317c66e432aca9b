//! Attributes as the typed labels that a series' identity is hashed from.

use tidemill_text::{LabelValue, ScopeHash};

use crate::otlp::Frame;
use crate::otlp::value::{AnyRef, Attribute, decode_any, decode_attribute, each_element};

/// The hash so far of all series of the frame.
pub(crate) fn scope_hash(frame: Frame<'_, '_>) -> ScopeHash {
    let scope = frame.scope;
    ScopeHash::new(
        &label_values(&frame.resource.attributes),
        scope.name,
        scope.version,
        &label_values(&scope.attributes),
    )
}

/// The attributes as labels, in their order.
pub(crate) fn label_values<'a>(attributes: &[Attribute<'a>]) -> Vec<(&'a str, LabelValue<'a>)> {
    attributes.iter().map(|(key, value)| (*key, label_value(*value))).collect()
}

fn label_value(value: AnyRef<'_>) -> LabelValue<'_> {
    match value {
        AnyRef::Empty => LabelValue::Empty,
        AnyRef::String(text) => LabelValue::String(text),
        AnyRef::Bool(flag) => LabelValue::Bool(flag),
        AnyRef::Int(number) => LabelValue::Int(number),
        AnyRef::Double(number) => LabelValue::Double(number),
        AnyRef::Bytes(bytes) => LabelValue::Bytes(bytes),
        AnyRef::Array(list) => {
            let mut values = Vec::new();
            let walked = each_element(list, |_, element| {
                values.push(label_value(decode_any(element, 0)?));
                Ok(())
            });
            debug_assert!(walked.is_ok(), "the list was checked when it was decoded");
            LabelValue::Array(values)
        }
        AnyRef::Map(list) => {
            let mut labels = Vec::new();
            let walked = each_element(list, |_, pair| {
                let (key, value) = decode_attribute(pair, 0)?;
                labels.push((key, label_value(value)));
                Ok(())
            });
            debug_assert!(walked.is_ok(), "the list was checked when it was decoded");
            LabelValue::Map(labels)
        }
    }
}
