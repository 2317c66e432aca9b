//! The push as JSON, read stream by stream and entry by entry, so that nothing of it is held twice.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Entry, Labels, OpenStream, Writer};
use crate::ingest::Issue;

/// Reads `body` into `writer`.
pub(super) fn read(body: &[u8], writer: &mut Writer) -> Result<(), Issue> {
    let wrong = |error: serde_json::Error| Issue {
        path: String::new(),
        reason: format!("the push is no JSON of Loki's: {error}"),
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(Push(writer)).map_err(wrong)?;
    json.end().map_err(wrong)
}

struct Push<'w>(&'w mut Writer);

impl<'de> Visitor<'de> for Push<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with streams")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "streams" {
                map.next_value_seed(Streams(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Streams<'w>(&'w mut Writer);

impl<'de> DeserializeSeed<'de> for Streams<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Streams<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of streams")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(OneStream(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct OneStream<'w>(&'w mut Writer);

impl<'de> DeserializeSeed<'de> for OneStream<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneStream<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a stream with labels and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut labels = Labels::new();
        let mut values: Option<&'de RawValue> = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "stream" => labels = map.next_value_seed(LabelMap)?,
                "values" => values = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let stream = self.0.begin(labels);
        if let Some(values) = values {
            let mut json = serde_json::Deserializer::from_str(values.get());
            let read = json.deserialize_seq(Entries { writer: &mut *self.0, stream: &stream });
            read.map_err(|error| A::Error::custom(format!("{}: {error}", stream.name)))?;
        }
        self.0.end(stream);
        Ok(())
    }
}

/// Labels, whose values may be numbers too.
struct LabelMap;

impl<'de> DeserializeSeed<'de> for LabelMap {
    type Value = Labels;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Labels, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LabelMap {
    type Value = Labels;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::new();
        while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
            let value = match value {
                serde_json::Value::String(text) => text,
                value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => value.to_string(),
                _ => return Err(A::Error::custom(format!("label {name:?} has a value that is no text"))),
            };
            labels.insert(name, value);
        }
        Ok(labels)
    }
}

struct Entries<'w, 's> {
    writer: &'w mut Writer,
    stream: &'s OpenStream,
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(OneEntry { writer: &mut *self.writer, stream: self.stream })?.is_some() {}
        Ok(())
    }
}

struct OneEntry<'w, 's> {
    writer: &'w mut Writer,
    stream: &'s OpenStream,
}

impl<'de> DeserializeSeed<'de> for OneEntry<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneEntry<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an entry: [\"<nanoseconds>\", \"<line>\"], and an object of structured metadata")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let missing = |what: &str| A::Error::custom(format!("an entry without {what}"));
        let time: Cow<'de, str> = seq.next_element::<Text<'de>>()?.ok_or_else(|| missing("a time"))?.0;
        let time_ns: i64 = time.parse().map_err(|_| A::Error::custom(format!("{time:?} is no time in nanoseconds")))?;
        let line = seq.next_element::<Text<'de>>()?.ok_or_else(|| missing("a line"))?.0;
        let metadata = seq.next_element::<MetadataMap<'de>>()?.unwrap_or_default().0;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.writer.entry(self.stream, &Entry { time_ns, line: &line, metadata: &metadata });
        Ok(())
    }
}

/// A text that is borrowed where it has no escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// Structured metadata, in the order that was sent.
#[derive(Default)]
struct MetadataMap<'de>(Vec<(Cow<'de, str>, Cow<'de, str>)>);

impl<'de> serde::Deserialize<'de> for MetadataMap<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = MetadataMap<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of texts, the structured metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetadataMap<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    pairs.push((name.0, value.0));
                }
                Ok(MetadataMap(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
