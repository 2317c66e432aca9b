//! Events of Google Cloud Storage: an object resource as such, and the envelope of a Pub/Sub push subscription.
//!
//! Formats: "Objects" of the Cloud Storage JSON API, "Pub/Sub notifications for Cloud Storage" (attributes `eventType`,
//! `payloadFormat`, `bucketId`, `objectId`, `objectGeneration`), and "Push subscriptions" of Pub/Sub.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cursor::Cursor;
use super::event::{Malformed, ObjectEvent};
use super::parse::{Collected, parse_json};

/// An object resource: `{"kind": "storage#object", "bucket", "name", "generation", "size" …}`.
///
/// Its `etag` is that of the JSON API, which is not the one that a read compares, so it is left out.
pub(super) fn read_object(object: &Cursor<'_>) -> Result<ObjectEvent, Malformed> {
    let time = object.find("updated").or_else(|| object.find("timeCreated"));
    Ok(ObjectEvent {
        bucket: object.field("bucket")?.filled_text()?.to_owned(),
        key: object.field("name")?.filled_text()?.to_owned(),
        size_bytes: object.find("size").map(|size| size.size()).transpose()?,
        version: object.find("generation").map(|generation| read_generation(&generation)).transpose()?,
        etag: None,
        event_time: time.map(|time| time.time()).transpose()?,
    })
}

fn read_generation(generation: &Cursor<'_>) -> Result<String, Malformed> {
    generation
        .size()
        .map(|number| number.to_string())
        .map_err(|_| generation.malformed("expected a generation number, as a string"))
}

/// `{"message": {"attributes": {…}, "data": "<base64>"}, "subscription": "projects/…"}`.
pub(super) fn read_pubsub(root: &Cursor<'_>, collected: &mut Collected) -> Result<(), Malformed> {
    let message = root.field("message")?;
    let attributes = message.find("attributes");
    let attribute = |name: &str| attributes.as_ref().and_then(|attributes| attributes.find(name));
    if let Some(event_type) = attribute("eventType")
        && event_type.text()? != "OBJECT_FINALIZE"
    {
        collected.skip();
        return Ok(());
    }
    if attribute("payloadFormat").is_some_and(|format| format.value() == "NONE") {
        let attributes = message.field("attributes")?;
        let event = ObjectEvent {
            bucket: attributes.field("bucketId")?.filled_text()?.to_owned(),
            key: attributes.field("objectId")?.filled_text()?.to_owned(),
            size_bytes: None,
            version: attributes.find("objectGeneration").map(|generation| read_generation(&generation)).transpose()?,
            etag: None,
            event_time: attributes.find("eventTime").map(|time| time.time()).transpose()?,
        };
        collected.push(event);
        return Ok(());
    }
    let data = message.field("data")?;
    let decoded =
        STANDARD.decode(data.filled_text()?).map_err(|error| data.malformed(format!("is no base64: {error}")))?;
    let object = parse_json(&decoded, data.path())?;
    let object = Cursor::root(&object, data.path());
    collected.push(read_object(&object)?);
    Ok(())
}
