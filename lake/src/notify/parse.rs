//! Recognizes a notification by its shape and reads it.

use http::HeaderMap;
use serde_json::Value;

use super::cursor::{Cursor, excerpt};
use super::event::{Content, Malformed, Notification, ObjectEvent, Source};
use super::{event_grid, google, s3, sns};

/// The largest body that is read.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The most events that one notification may hold.
pub const MAX_EVENTS: usize = 10_000;

/// What has been read of a notification so far.
#[derive(Debug, Default)]
pub(super) struct Collected {
    events: Vec<ObjectEvent>,
    skipped: usize,
    malformed: Vec<Malformed>,
    validation: Option<String>,
}

impl Collected {
    pub(super) fn push(&mut self, event: ObjectEvent) {
        self.events.push(event);
    }

    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Notes an event that cannot be read; those beside it still count.
    pub(super) fn note(&mut self, malformed: Malformed) {
        self.malformed.push(malformed);
    }

    pub(super) fn validate(&mut self, code: &str) {
        self.validation = Some(code.to_owned());
    }

    fn into_notification(mut self, source: Source) -> Result<Notification, Malformed> {
        if self.events.is_empty() && self.skipped == 0 && !self.malformed.is_empty() {
            return Err(self.malformed.remove(0));
        }
        let content = match self.validation {
            Some(code) => Content::ValidateSubscription { code },
            None => Content::Objects { events: self.events, skipped: self.skipped, malformed: self.malformed },
        };
        Ok(Notification { source, content })
    }
}

/// Reads a notification. The headers matter only where the sender puts a part of it there (CloudEvents, Cloud Storage).
///
/// # Errors
/// A body that is too large, no JSON, of no known shape, or of a known shape with a wrong field; the place is named.
pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Notification, Malformed> {
    if body.len() > MAX_BODY_BYTES {
        let reason = format!("the body has {} bytes, at most {MAX_BODY_BYTES} are read", body.len());
        return Err(Malformed { path: "$".to_owned(), reason });
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A channel of Cloud Storage's object change notification opens with `sync`, whose body is empty.
    match header("x-goog-resource-state") {
        Some("sync" | "not_exists") => return Ok(skipped_one(Source::Gcs)),
        Some("exists") | None => {}
        Some(other) => {
            let reason = format!("expected exists, not_exists or sync, found {:?}", excerpt(other));
            return Err(Malformed { path: "header x-goog-resource-state".to_owned(), reason });
        }
    }
    let value = parse_json(body, "")?;
    let root = Cursor::root(&value, "");
    if let (Some(_), Some(kind)) = (header("ce-specversion"), header("ce-type")) {
        let mut collected = Collected::default();
        event_grid::read_binary(kind, header("ce-subject"), &root, &mut collected)?;
        return collected.into_notification(Source::CloudEvents);
    }
    parse_value(&root, Wrapping::Allowed)
}

/// Whether a shape that holds another notification is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    Allowed,
    Refused,
}

pub(super) fn parse_value(root: &Cursor<'_>, wrapping: Wrapping) -> Result<Notification, Malformed> {
    let mut collected = Collected::default();
    let source = match root.value() {
        Value::Array(_) => read_batch(root, &mut collected)?,
        Value::Object(_) if root.has("Records") => {
            s3::read_records(root, &mut collected)?;
            Source::S3
        }
        Value::Object(_) if root.find("Event").is_some_and(|event| event.value() == "s3:TestEvent") => {
            return Ok(s3::test_event());
        }
        Value::Object(_) if root.has("Type") && root.has("TopicArn") => return sns::read(root, wrapping),
        Value::Object(_) if root.has("detail-type") => {
            s3::read_eventbridge(root, &mut collected)?;
            Source::EventBridge
        }
        Value::Object(_) if root.has("message") && root.has("subscription") => {
            google::read_pubsub(root, &mut collected)?;
            Source::PubSub
        }
        Value::Object(_) if root.has("specversion") => {
            event_grid::read_event(root, &mut collected)?;
            Source::CloudEvents
        }
        Value::Object(_) if root.has("eventType") && root.has("data") => {
            event_grid::read_event(root, &mut collected)?;
            Source::EventGrid
        }
        Value::Object(_) if root.find("kind").is_some_and(|kind| kind.value() == "storage#object") => {
            collected.push(google::read_object(root)?);
            Source::Gcs
        }
        _ => return Err(root.malformed(unrecognized(root.value()))),
    };
    collected.into_notification(source)
}

/// An array of events: Event Grid's own delivery, or a CloudEvents batch.
fn read_batch(root: &Cursor<'_>, collected: &mut Collected) -> Result<Source, Malformed> {
    let events = bounded_items(root)?;
    let Some(first) = events.first() else {
        return Err(root.malformed("the array of events is empty"));
    };
    let source = if first.has("specversion") { Source::CloudEvents } else { Source::EventGrid };
    for event in &events {
        if let Err(malformed) = event_grid::read_event(event, collected) {
            collected.note(malformed);
        }
    }
    Ok(source)
}

/// The items of an array of events.
pub(super) fn bounded_items<'a>(events: &Cursor<'a>) -> Result<Vec<Cursor<'a>>, Malformed> {
    let items = events.items()?;
    if items.len() > MAX_EVENTS {
        return Err(events.malformed(format!("has {} events, at most {MAX_EVENTS} are read", items.len())));
    }
    Ok(items)
}

pub(super) fn parse_json(bytes: &[u8], path: &str) -> Result<Value, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| {
        let path = if path.is_empty() { "$" } else { path };
        Malformed { path: path.to_owned(), reason: format!("is no JSON: {error}") }
    })
}

/// The content of a notification that is about something else than an object's writing.
pub(super) fn nothing_new() -> Content {
    Content::Objects { events: Vec::new(), skipped: 1, malformed: Vec::new() }
}

fn skipped_one(source: Source) -> Notification {
    Notification { source, content: nothing_new() }
}

fn unrecognized(value: &Value) -> String {
    let found = match value.as_object() {
        Some(object) => {
            let names: Vec<String> = object.keys().take(8).map(|name| format!("{:?}", excerpt(name))).collect();
            format!("an object with the fields [{}]", names.join(", "))
        }
        None => excerpt(&value.to_string()),
    };
    format!(
        "is no notification of a known shape (S3, SNS, EventBridge, Cloud Storage, Pub/Sub push, Event Grid, CloudEvents): found {found}"
    )
}
