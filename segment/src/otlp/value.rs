//! `AnyValue` and attribute lists, borrowed from the message.

use super::fault::{Fault, InField};
use super::wire::Fields;

/// Values nested deeper than this are refused.
pub(crate) const DEPTH_LIMIT: usize = 32;

/// A checked `AnyValue`; arrays and maps are their undecoded messages, which are known to be well-formed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AnyRef<'a> {
    Empty,
    String(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// An `ArrayValue` message.
    Array(&'a [u8]),
    /// A `KeyValueList` message.
    Map(&'a [u8]),
}

/// One `KeyValue`.
pub(crate) type Attribute<'a> = (&'a str, AnyRef<'a>);

/// Decodes and checks an `AnyValue` message at nesting `depth`.
pub(crate) fn decode_any(message: &[u8], depth: usize) -> Result<AnyRef<'_>, Fault> {
    if depth > DEPTH_LIMIT {
        return Err(Fault::new(format!("nested deeper than {DEPTH_LIMIT} levels")));
    }
    let mut value = AnyRef::Empty;
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        value = match number {
            1 => AnyRef::String(wire.text().in_field("stringValue")?),
            2 => AnyRef::Bool(wire.varint().in_field("boolValue")? != 0),
            3 => AnyRef::Int(wire.varint().in_field("intValue")? as i64),
            4 => AnyRef::Double(wire.double().in_field("doubleValue")?),
            5 => {
                let array = wire.bytes().in_field("arrayValue")?;
                each_element(array, |index, element| {
                    decode_any(element, depth + 1).map(drop).map_err(|fault| fault.within_item("values", index))
                })
                .in_field("arrayValue")?;
                AnyRef::Array(array)
            }
            6 => {
                let map = wire.bytes().in_field("kvlistValue")?;
                each_element(map, |index, pair| {
                    decode_attribute(pair, depth + 1).map(drop).map_err(|fault| fault.within_item("values", index))
                })
                .in_field("kvlistValue")?;
                AnyRef::Map(map)
            }
            7 => AnyRef::Bytes(wire.bytes().in_field("bytesValue")?),
            _ => value,
        };
    }
    Ok(value)
}

/// Decodes and checks a `KeyValue` message.
#[inline]
pub(crate) fn decode_attribute(message: &[u8], depth: usize) -> Result<Attribute<'_>, Fault> {
    let mut key = "";
    let mut value = AnyRef::Empty;
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => key = wire.text().in_field("key")?,
            2 => {
                value =
                    wire.bytes().map_err(Fault::from).and_then(|bytes| decode_any(bytes, depth)).in_field("value")?
            }
            _ => {}
        }
    }
    Ok((key, value))
}

/// Calls `visit` for each element of an `ArrayValue` or `KeyValueList`: both have their elements in field 1.
pub(crate) fn each_element<'a>(
    list: &'a [u8],
    mut visit: impl FnMut(usize, &'a [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut index = 0;
    let mut fields = Fields::of(list);
    while let Some((number, wire)) = fields.next()? {
        if number == 1 {
            visit(index, wire.bytes()?)?;
            index += 1;
        }
    }
    Ok(())
}
