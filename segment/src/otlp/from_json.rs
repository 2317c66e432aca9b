//! OTLP/JSON to OTLP protobuf, member by member, without a tree in between.
//!
//! A record that is wrong inside is left out and told as an issue; anything wrong outside of records fails the request. A record is
//! decoded as soon as it is written: later, those left out would no longer count in the places of those behind them.

use std::fmt;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tidemill_types::Signal;

use super::RECORD_LIMIT_BYTES;
use super::fault::Fault;
use super::json_schema::{Field, Kind, Message, Record, request};
use super::logs::LogRow;
use super::metrics::PointRow;
use super::spans::SpanRow;
use super::walk::too_large;
use super::writer::{
    close_message, open_message, put_bytes_field, put_fixed32_field, put_fixed64_field, put_message_field,
    put_varint_field,
};
use crate::ingest::{Issue, REPORTED_ISSUES};

/// Padding is optional in the JSON of protobuf.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A request as protobuf, and the records that were left out.
#[derive(Debug, Default)]
pub(crate) struct Converted {
    pub protobuf: Vec<u8>,
    pub rejected: u64,
    pub issues: Vec<Issue>,
    /// It has members, and none that a request has.
    pub is_foreign: bool,
}

/// Converts an export request of `signal`.
///
/// # Errors
/// When the text is no JSON or something outside of its records is wrong.
pub(crate) fn convert(signal: Signal, text: &[u8]) -> Result<Converted, Issue> {
    let mut state = State::default();
    let mut protobuf = Vec::with_capacity(text.len() / 2);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let members = Members { message: request(signal), out: &mut protobuf, state: &mut state };
    let read = members.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match read {
        Ok(()) => {
            let State { rejected, issues, members: [known, unknown], .. } = state;
            Ok(Converted { protobuf, rejected, issues, is_foreign: known == 0 && unknown > 0 })
        }
        Err(error) => Err(Issue { path: state.path_text(), reason: error.to_string() }),
    }
}

/// Where the conversion stands and what it left out.
#[derive(Default)]
struct State {
    path: Vec<Step>,
    rejected: u64,
    issues: Vec<Issue>,
    /// Of the request itself: how many are known, how many are not.
    members: [u64; 2],
}

enum Step {
    Member(&'static str),
    Item(usize),
}

impl State {
    fn path_text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Member(name) if text.is_empty() => text.push_str(name),
                Step::Member(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                Step::Item(place) => text.push_str(&format!("[{place}]")),
            }
        }
        text
    }

    /// Refuses the record in which the path stands; `fault` counts from there.
    fn refuse(&mut self, fault: Fault) {
        self.rejected += 1;
        if self.issues.len() < REPORTED_ISSUES {
            self.issues.push(fault.within(&self.path_text()).into_issue());
        }
    }
}

/// Reads an object whose members are `message`'s.
struct Members<'o, 's> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
    state: &'s mut State,
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let field = find_field(self.message, &name);
            if self.state.path.is_empty() {
                self.state.members[usize::from(field.is_none())] += 1;
            }
            let Some(field) = field else {
                if self.state.path.is_empty() && is_request_member(&name) {
                    return Err(A::Error::custom(format!("{name} is not of the signal that was named")));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.state.path.push(Step::Member(field.name));
            map.next_value_seed(Member { field, out: self.out, state: self.state, in_list: false })?;
            self.state.path.pop();
        }
        Ok(())
    }
}

/// Whether an export request of any signal has a member of this name.
pub(crate) fn is_request_member(name: &str) -> bool {
    Signal::ALL.into_iter().any(|signal| find_field(request(signal), name).is_some())
}

fn find_field(message: &Message, name: &str) -> Option<&'static Field> {
    let same = |field: &&Field| field.name == name || (name.contains('_') && is_snake_case_of(name, field.name));
    message.fields.iter().find(same)
}

fn is_snake_case_of(snake: &str, camel: &str) -> bool {
    let mut letters = snake.bytes();
    for letter in camel.bytes() {
        let expected = letter.to_ascii_lowercase();
        if letter.is_ascii_uppercase() && letters.next() != Some(b'_') {
            return false;
        }
        if letters.next() != Some(expected) {
            return false;
        }
    }
    letters.next().is_none()
}

/// Reads the value of one member, or one element of a list member.
struct Member<'o, 's> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
    state: &'s mut State,
    in_list: bool,
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Member<'_, '_> {
    fn is_list(&self) -> bool {
        self.field.is_list && !self.in_list
    }

    fn integer<E: serde::de::Error>(self, number: i128) -> Result<(), E> {
        let Field { number: field, kind, .. } = *self.field;
        let out_of_range = || E::custom(format!("{number} is out of range"));
        let unsigned = || u64::try_from(number).map_err(|_| out_of_range());
        let signed = || i64::try_from(number).map_err(|_| out_of_range());
        let narrow = || u32::try_from(number).map_err(|_| out_of_range());
        if self.is_list() {
            return Err(E::custom("a number, expected a list"));
        }
        match kind {
            Kind::Uint32 => put_varint_field(self.out, field, narrow()?.into()),
            Kind::Fixed32 => put_fixed32_field(self.out, field, narrow()?),
            Kind::Uint64 => put_varint_field(self.out, field, unsigned()?),
            Kind::Int64 => put_varint_field(self.out, field, signed()? as u64),
            Kind::Fixed64 => put_fixed64_field(self.out, field, unsigned()?),
            Kind::Sfixed64 => put_fixed64_field(self.out, field, signed()? as u64),
            Kind::Sint32 => {
                let value = i32::try_from(number).map_err(|_| out_of_range())?;
                put_varint_field(self.out, field, u64::from(((value << 1) ^ (value >> 31)) as u32));
            }
            Kind::Enum(_) => {
                let value = i32::try_from(number).map_err(|_| out_of_range())?;
                put_varint_field(self.out, field, i64::from(value) as u64);
            }
            Kind::Double => put_fixed64_field(self.out, field, (number as f64).to_bits()),
            Kind::String | Kind::Bytes | Kind::Id(_) => return Err(E::custom("a number, expected text")),
            Kind::Bool => return Err(E::custom("a number, expected true or false")),
            Kind::Message(_) => return Err(E::custom("a number, expected an object")),
        }
        Ok(())
    }

    fn text<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let Field { number: field, kind, .. } = *self.field;
        if self.is_list() {
            return Err(E::custom("text, expected a list"));
        }
        match kind {
            Kind::String => put_bytes_field(self.out, field, text.as_bytes()),
            Kind::Bytes => {
                let bytes = BASE64.decode(text).map_err(|error| E::custom(format!("no base64: {error}")))?;
                put_bytes_field(self.out, field, &bytes);
            }
            Kind::Id(length) => {
                let id =
                    hex::decode(text).map_err(|error| E::custom(format!("{text:?} is no hexadecimal id: {error}")))?;
                if !id.is_empty() && id.len() != length {
                    return Err(E::custom(format!("{} bytes, expected {length}", id.len())));
                }
                put_bytes_field(self.out, field, &id);
            }
            Kind::Double => {
                let number = match text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => text.parse().map_err(|_| E::custom(format!("{text:?} is no number")))?,
                };
                put_fixed64_field(self.out, field, number.to_bits());
            }
            Kind::Enum(names) => match names.iter().find(|(name, _)| *name == text) {
                Some((_, value)) => put_varint_field(self.out, field, i64::from(*value) as u64),
                None => return self.parsed(text),
            },
            Kind::Bool | Kind::Message(_) => return Err(E::custom("text, expected another type")),
            _ => return self.parsed(text),
        }
        Ok(())
    }

    fn parsed<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match text.parse::<i128>() {
            Ok(number) => self.integer(number),
            Err(_) => Err(E::custom(format!("{text:?} is no integer"))),
        }
    }
}

impl<'de> Visitor<'de> for Member<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.field.kind {
            _ if self.is_list() => "a list",
            Kind::String | Kind::Bytes | Kind::Id(_) => "text",
            Kind::Bool => "true or false",
            Kind::Message(_) => "an object",
            _ => "a number",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool if !self.is_list() => {
                put_varint_field(self.out, self.field.number, u64::from(flag));
                Ok(())
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(flag), &self)),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double if !self.is_list() => {
                put_fixed64_field(self.out, self.field.number, number.to_bits());
                Ok(())
            }
            // 1e3 is an integer written as a double, which protobuf's JSON allows; up to 2^53 every integer is exact.
            _ if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => self.integer(number as i128),
            _ => Err(E::invalid_type(serde::de::Unexpected::Float(number), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.field.kind else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        };
        if self.is_list() {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        }
        let (out, state) = (self.out, self.state);
        put_message_field(out, self.field.number, |out| Members { message, out, state }.visit_map(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !self.is_list() {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        let mut place = 0;
        loop {
            self.state.path.push(Step::Item(place));
            let record = match self.field.kind {
                Kind::Message(message) => message.record.map(|record| (self.field.number, message, record)),
                _ => None,
            };
            let more = match record {
                Some(record) => read_record(&mut list, record, self.out, self.state)?,
                None => list
                    .next_element_seed(Member { field: self.field, out: self.out, state: self.state, in_list: true })?
                    .is_some(),
            };
            self.state.path.pop();
            if !more {
                return Ok(());
            }
            place += 1;
        }
    }
}

/// Reads one element that may be refused alone; false at the list's end.
fn read_record<'de, A: SeqAccess<'de>>(
    list: &mut A,
    (number, message, record): (u32, &'static Message, Record),
    out: &mut Vec<u8>,
    state: &mut State,
) -> Result<bool, A::Error> {
    let Some(text) = list.next_element::<&'de RawValue>()? else { return Ok(false) };
    let before = (out.len(), state.path.len());
    let start = open_message(out, number);
    let mut deserializer = serde_json::Deserializer::from_str(text.get());
    let read = Members { message, out, state }.deserialize(&mut deserializer);
    let checked = match read {
        Ok(()) => decode_record(record, &out[start..]),
        // Line and column would count from the record's start.
        Err(error) => {
            let text = error.to_string();
            Err(Fault::new(text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason)))
        }
    };
    match checked {
        Ok(()) => close_message(out, start),
        Err(fault) => {
            state.refuse(fault);
            out.truncate(before.0);
        }
    }
    state.path.truncate(before.1);
    Ok(true)
}

/// Decodes what was written, as it will be when it is stored.
fn decode_record(record: Record, message: &[u8]) -> Result<(), Fault> {
    if message.len() > RECORD_LIMIT_BYTES {
        return Err(too_large(message));
    }
    match record {
        Record::Log => LogRow::empty().decode(message),
        Record::Span => SpanRow::default().decode(message),
        Record::Point(kind) => PointRow::default().decode(kind, message),
    }
}
