//! Events of Azure Event Grid in its own schema and in CloudEvents 1.0, and CloudEvents of Google Eventarc.
//!
//! Formats: "Azure Blob Storage as Event Grid source", "Endpoint validation with Event Grid event schema" of Microsoft Learn;
//! "CloudEvents - JSON Format 1.0.2"; `google.cloud.storage.object.v1.finalized` of Eventarc.

use super::cursor::{Cursor, excerpt};
use super::event::{Malformed, ObjectEvent};
use super::google;
use super::parse::Collected;
use super::s3::quote_etag;

const BLOB_CREATED: &str = "Microsoft.Storage.BlobCreated";
const VALIDATION: &str = "Microsoft.EventGrid.SubscriptionValidationEvent";
const GOOGLE_FINALIZED: &str = "google.cloud.storage.object.v1.finalized";

/// One event: of either schema, told apart by `specversion`.
pub(super) fn read_event(event: &Cursor<'_>, collected: &mut Collected) -> Result<(), Malformed> {
    let (kind, time) = if event.has("specversion") { ("type", "time") } else { ("eventType", "eventTime") };
    let kind = event.field(kind)?.text()?;
    match kind {
        BLOB_CREATED => {
            let data = event.field("data")?;
            // Data Lake Storage announces a file when it is created, still empty, and again when it is closed.
            if data.find("api").is_some_and(|api| api.value() == "CreateFile") {
                collected.skip();
                return Ok(());
            }
            collected.push(read_blob(event, &data, time)?);
        }
        VALIDATION => {
            let code = event.at("data.validationCode")?.filled_text()?;
            collected.validate(code);
        }
        GOOGLE_FINALIZED => collected.push(google::read_object(&event.field("data")?)?),
        _ => collected.skip(),
    }
    Ok(())
}

/// An event whose attributes came as `ce-` headers: the body is its data.
pub(super) fn read_binary(
    kind: &str,
    subject: Option<&str>,
    data: &Cursor<'_>,
    collected: &mut Collected,
) -> Result<(), Malformed> {
    match kind {
        GOOGLE_FINALIZED => collected.push(google::read_object(data)?),
        BLOB_CREATED => {
            let subject = subject.ok_or_else(|| data.malformed("the header ce-subject is missing"))?;
            let (bucket, key) = split_subject(subject).ok_or_else(|| data.malformed(bad_subject(subject)))?;
            collected.push(blob(bucket, key, data)?);
        }
        _ => collected.skip(),
    }
    Ok(())
}

fn read_blob(event: &Cursor<'_>, data: &Cursor<'_>, time: &str) -> Result<ObjectEvent, Malformed> {
    let subject = event.field("subject")?;
    let text = subject.text()?;
    let (bucket, key) = split_subject(text).ok_or_else(|| subject.malformed(bad_subject(text)))?;
    let event_time = event.find(time).map(|time| time.time()).transpose()?;
    Ok(ObjectEvent { event_time, ..blob(bucket, key, data)? })
}

fn blob(bucket: &str, key: &str, data: &Cursor<'_>) -> Result<ObjectEvent, Malformed> {
    let etag = data.find("eTag").map(|etag| etag.filled_text()).transpose()?;
    Ok(ObjectEvent {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        size_bytes: data.find("contentLength").map(|size| size.size()).transpose()?,
        version: None,
        etag: etag.map(|etag| quote_etag(etag.to_owned())),
        event_time: None,
    })
}

/// `/blobServices/default/containers/<container>/blobs/<path>`; unlike `data.url` it is not URL-encoded.
fn split_subject(subject: &str) -> Option<(&str, &str)> {
    let rest = subject.strip_prefix("/blobServices/default/containers/")?;
    let (container, key) = rest.split_once("/blobs/")?;
    (!container.is_empty() && !key.is_empty()).then_some((container, key))
}

fn bad_subject(subject: &str) -> String {
    format!("expected /blobServices/default/containers/<container>/blobs/<path>, found {:?}", excerpt(subject))
}
