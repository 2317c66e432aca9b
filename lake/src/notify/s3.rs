//! Events of Amazon S3: its own message, and the one of EventBridge.
//!
//! Formats: "Event message structure" of the Amazon S3 User Guide, and its "EventBridge event message structure". The first
//! encodes keys as a form field (`+` is a space); the second does not encode them.

use percent_encoding::percent_decode_str;

use super::cursor::{Cursor, excerpt};
use super::event::{Malformed, Notification, ObjectEvent, Source};
use super::parse::{Collected, bounded_items, nothing_new};

/// `{"Records": [...]}`.
pub(super) fn read_records(root: &Cursor<'_>, collected: &mut Collected) -> Result<(), Malformed> {
    for record in bounded_items(&root.field("Records")?)? {
        match read_record(&record) {
            Ok(Some(event)) => collected.push(event),
            Ok(None) => collected.skip(),
            Err(malformed) => collected.note(malformed),
        }
    }
    Ok(())
}

/// `None` for an event about something else.
fn read_record(record: &Cursor<'_>) -> Result<Option<ObjectEvent>, Malformed> {
    let name = record.field("eventName")?.text()?;
    // Amazon writes `ObjectCreated:Put`; MinIO and Ceph put `s3:` in front.
    if !name.strip_prefix("s3:").unwrap_or(name).starts_with("ObjectCreated:") {
        return Ok(None);
    }
    let s3 = record.field("s3")?;
    let object = s3.field("object")?;
    let key = object.field("key")?;
    let text = |name: &str| object.find(name).map(|found| found.filled_text().map(str::to_owned)).transpose();
    Ok(Some(ObjectEvent {
        bucket: s3.at("bucket.name")?.filled_text()?.to_owned(),
        key: decode_key(&key)?,
        size_bytes: object.find("size").map(|size| size.size()).transpose()?,
        version: text("versionId")?,
        etag: text("eTag")?.map(quote_etag),
        event_time: record.find("eventTime").map(|time| time.time()).transpose()?,
    }))
}

/// Undoes the encoding of a form field.
fn decode_key(key: &Cursor<'_>) -> Result<String, Malformed> {
    let text = key.filled_text()?;
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(|decoded| decoded.into_owned())
        .map_err(|_| key.malformed(format!("the key {:?} is not UTF-8 after URL-decoding", excerpt(text))))
}

/// The ETag as HTTP writes it; S3's events leave the quotes out.
pub(super) fn quote_etag(etag: String) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") { etag } else { format!("\"{etag}\"") }
}

/// `{"source": "aws.s3", "detail-type": "Object Created", "detail": {...}}`.
pub(super) fn read_eventbridge(root: &Cursor<'_>, collected: &mut Collected) -> Result<(), Malformed> {
    let source = root.field("source")?;
    if source.text()? != "aws.s3" {
        return Err(source.malformed(format!("expected \"aws.s3\", found {:?}", excerpt(source.text()?))));
    }
    if root.field("detail-type")?.text()? != "Object Created" {
        collected.skip();
        return Ok(());
    }
    let detail = root.field("detail")?;
    let object = detail.field("object")?;
    let text = |name: &str| object.find(name).map(|found| found.filled_text().map(str::to_owned)).transpose();
    let event = ObjectEvent {
        bucket: detail.at("bucket.name")?.filled_text()?.to_owned(),
        key: object.field("key")?.filled_text()?.to_owned(),
        size_bytes: object.find("size").map(|size| size.size()).transpose()?,
        version: text("version-id")?,
        etag: text("etag")?.map(quote_etag),
        event_time: root.find("time").map(|time| time.time()).transpose()?,
    };
    collected.push(event);
    Ok(())
}

/// `{"Service": "Amazon S3", "Event": "s3:TestEvent", ...}`, sent when a bucket's notifications are configured.
pub(super) fn test_event() -> Notification {
    Notification { source: Source::S3, content: nothing_new() }
}
