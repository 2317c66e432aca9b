//! Ingest: raw objects to L0 segments.
//!
//! Inputs are downloaded ahead while the ones before are encoded on the blocking pool. An input that cannot be used is refused
//! with its reason and completes; only what may pass by itself fails the bundle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::stream;
use tidemill_segment::DraftSegment;
use tidemill_segment::identities::{InputKind, ListedIdentity};
use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription, InputFormat, InputReport};
use tidemill_store::metastore::{Bundle, InputIdentity, NewInput, Publication, Refusal, WorkItem};
use tidemill_store::step::{Step, reach};
use tidemill_types::{ErrorKind, Hour};
use tokio::sync::mpsc;

use super::download::{Downloaded, Wanted, download};
use super::upload::Uploads;
use super::{Ending, Shared};
use crate::own_key::{self, OwnKey};
use crate::raw_object::{END_BYTES, Part, decode_trailer, trailer_bytes};
use crate::{Error, Result};

/// Inputs downloaded ahead of the encoder.
const DOWNLOADS_AHEAD: usize = 4;
/// The largest object that is read.
const MAX_OBJECT_BYTES: u64 = 4 << 30;

/// What the encoding thread is told. Without `Finish` it stops and its work is dropped.
enum Feed {
    Input(usize, InputDescription, Downloaded, Vec<ListedIdentity>),
    Finish,
}

struct Encoded {
    drafts: Vec<DraftSegment>,
    reports: Vec<(usize, InputReport)>,
}

/// Ingests a bundle and publishes its segments.
pub(super) async fn ingest(shared: &Arc<Shared>, bundle: &Bundle) -> Result<Ending> {
    reach(Step::IngestClaimed);
    let place = shared.deps.placement.for_segments(bundle.organization, bundle.instance_num)?;
    let (encoded, mut refusals) = encode(shared, bundle).await?;
    reach(Step::IngestEncoded);
    refusals.extend(encoded.reports.iter().filter_map(|(index, report)| refusal_of(shared, bundle, *index, report)));
    let hours: BTreeSet<Hour> = encoded.drafts.iter().flat_map(|draft| draft.hours.iter().copied()).collect();
    let mut uploads = Uploads::new(shared, bundle, &place);
    let segments = uploads.store(encoded.drafts).await?;
    reach(Step::IngestUploaded);
    let now = shared.deps.metastore.now().await?;
    let enqueue = shared.triggers.after_ingest(bundle, &segments, &hours, now);
    let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
    let publication = Publication {
        segments,
        raised_hours: hours.into_iter().collect(),
        enqueue,
        refusals,
        ..Publication::default()
    };
    let ending = uploads.publish(&publication).await?;
    if ending == Ending::Published {
        count(shared, bundle, rows, &encoded.reports);
    }
    Ok(ending)
}

fn count(shared: &Shared, bundle: &Bundle, rows: u64, reports: &[(usize, InputReport)]) {
    let counters = &shared.counters;
    let input_bytes = bundle.items.iter().filter_map(|item| item.input.as_ref()).map(|input| input.size_bytes).sum();
    let arrivals = bundle.items.iter().filter_map(|item| item.input.as_ref()).map(|input| input.arrived_at);
    counters.lag.observe(arrivals, shared.deps.clock.now());
    counters.rows.fetch_add(rows, Ordering::Relaxed);
    counters.input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
    counters.times_replaced.fetch_add(reports.iter().map(|(_, report)| report.times_replaced).sum(), Ordering::Relaxed);
    counters.records_refused.fetch_add(reports.iter().map(|(_, report)| report.rejected).sum(), Ordering::Relaxed);
}

/// Downloads and encodes every input; refusals are those inputs that are not what was announced.
async fn encode(shared: &Arc<Shared>, bundle: &Bundle) -> Result<(Encoded, Vec<Refusal>)> {
    let options = IngestOptions {
        signal: bundle.queue.signal,
        promote: shared.deps.placement.promoted(bundle.organization, bundle.queue.signal),
        spool: shared.options.spool.clone(),
        memory_bytes: shared.options.memory_bytes,
    };
    let (feed, fed) = mpsc::channel(1);
    let encoding = tokio::task::spawn_blocking(move || encode_inputs(options, fed));
    let fed = feed_inputs(shared, bundle, &feed).await;
    // Without `Finish` the encoder stops at once.
    drop(feed);
    let encoded = encoding.await.map_err(|error| Error::Internal(format!("encoding a bundle: {error}")))?;
    // When the encoder failed, feeding it failed too, and the encoder knows why.
    match (encoded, fed) {
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(error),
        (Ok(Some(encoded)), Ok(refusals)) => Ok((encoded, refusals)),
        (Ok(None), Ok(_)) => Err(Error::Internal("the encoder stopped before its inputs ended".to_owned())),
    }
}

async fn feed_inputs(shared: &Shared, bundle: &Bundle, feed: &mpsc::Sender<Feed>) -> Result<Vec<Refusal>> {
    let mut refusals = Vec::new();
    let fetches: Vec<_> = bundle.items.iter().map(|item| fetch_input(shared, item)).collect();
    let mut downloads = stream::iter(fetches).buffered(DOWNLOADS_AHEAD).enumerate();
    while let Some((index, fetched)) = downloads.next().await {
        match fetched? {
            Ok((description, downloaded)) => {
                let input = bundle.items[index].input.as_ref();
                let identities = input.map_or(Ok(Vec::new()), |input| identities_of(input, &downloaded))?;
                if feed.send(Feed::Input(index, description, downloaded, identities)).await.is_err() {
                    return Err(Error::Internal("the encoder stopped".to_owned()));
                }
            }
            Err(reason) => refusals.extend(refuse(shared, bundle, index, 0, 0, reason)),
        }
    }
    // The encoder's own failure is reported in its place.
    drop(feed.send(Feed::Finish).await);
    Ok(refusals)
}

/// An input ready to be read; the inner error is why it never will be.
async fn fetch_input(
    shared: &Shared,
    item: &WorkItem,
) -> Result<std::result::Result<(InputDescription, Downloaded), String>> {
    let Some(input) = &item.input else {
        return Err(Error::Internal(format!("ingest work item {} has no input", item.id)));
    };
    let format = match input.format.as_deref().map(parse_format) {
        None => None,
        Some(Some(format)) => Some(format),
        Some(None) => {
            return Ok(Err(format!("{:?} is not an input format", input.format.as_deref().unwrap_or_default())));
        }
    };
    if input.size_bytes > MAX_OBJECT_BYTES {
        return Ok(Err(format!("the object has {} bytes; at most {MAX_OBJECT_BYTES} are read", input.size_bytes)));
    }
    let store = shared.deps.buckets.get(&input.bucket)?;
    // The key of our own raw object is never written twice; its ETag would change when a folder is restored from a backup.
    let etag = if input.owned { None } else { input.etag.as_deref() };
    let wanted = Wanted { key: &input.object_key, etag, size_bytes: Some(input.size_bytes) };
    match download(store.as_ref(), wanted, &shared.options.spool).await {
        Ok(downloaded) => {
            let description = InputDescription { label: input.object_key.clone(), format, arrival: input.arrived_at };
            Ok(Ok((description, downloaded)))
        }
        Err(error) if input.owned => Err(missing_is_corrupt(input, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(Err("the object is gone; it was deleted after it was announced".to_owned()))
        }
        // A name that this store cannot be asked for, as one with an empty path component.
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(Err(format!("the object cannot be read: {error}"))),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(Err(format!(
            "the object was replaced after it was announced; its new version has an event of its own ({error})"
        ))),
        Err(error) => Err(error),
    }
}

/// An acknowledged push whose raw object is gone or changed is a broken promise, shown as a dead letter.
fn missing_is_corrupt(input: &NewInput, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Conflict => {
            let reason = format!("an acknowledged raw object is not as it was written: {error}");
            tidemill_store::Error::new("get", &input.object_key, ErrorKind::Corrupt, reason).into()
        }
        _ => error,
    }
}

/// What an input is known by: a raw object lists its requests, an announced object and a loaded file have one identity.
fn identities_of(input: &NewInput, downloaded: &Downloaded) -> Result<Vec<ListedIdentity>> {
    let arrival = input.arrived_at;
    if !input.owned {
        let listed = |one: &InputIdentity| ListedIdentity { kind: InputKind::Object, arrival, identity: one.0 };
        return Ok(input.identities.iter().map(listed).collect());
    }
    if let Some(OwnKey::Loaded { identity, .. }) = own_key::parse(&input.object_key) {
        return Ok(vec![ListedIdentity { kind: InputKind::Request, arrival, identity: identity.0 }]);
    }
    let end = downloaded.tail(END_BYTES)?;
    let Some(needed) = trailer_bytes(&end, input.size_bytes) else { return Ok(Vec::new()) };
    let parts = decode_trailer(&downloaded.tail(needed)?, input.size_bytes).unwrap_or_default();
    let listed = |part: Part| ListedIdentity { kind: InputKind::Request, arrival, identity: part.identity.0 };
    Ok(parts.into_iter().map(listed).collect())
}

fn parse_format(name: &str) -> Option<InputFormat> {
    InputFormat::parse(&name.replace('-', "_"))
}

/// The encoding thread. `None` when it was told to stop.
fn encode_inputs(options: IngestOptions, mut fed: mpsc::Receiver<Feed>) -> Result<Option<Encoded>> {
    let mut encoder = BundleEncoder::new(options).map_err(Error::segment("open a bundle encoder"))?;
    let mut reports = Vec::new();
    while let Some(feed) = fed.blocking_recv() {
        match feed {
            Feed::Input(index, description, downloaded, identities) => {
                encoder.note_identities(identities);
                let mut reader = downloaded.open()?;
                let report = encoder.read_input(&description, &mut *reader).map_err(Error::segment("read an input"))?;
                reports.push((index, report));
            }
            Feed::Finish => {
                let drafts = encoder.finish().map_err(Error::segment("write segments"))?;
                return Ok(Some(Encoded { drafts, reports }));
            }
        }
    }
    Ok(None)
}

fn refusal_of(shared: &Shared, bundle: &Bundle, index: usize, report: &InputReport) -> Option<Refusal> {
    if report.rejected == 0 && report.failure.is_none() {
        return None;
    }
    let mut lines: Vec<String> = report.failure.iter().cloned().collect();
    lines.extend(report.issues.iter().map(ToString::to_string));
    let unnamed = report.rejected.saturating_sub(report.issues.len() as u64);
    if unnamed > 0 && !report.issues.is_empty() {
        lines.push(format!("and {unnamed} more"));
    }
    if report.times_replaced > 0 {
        lines.push(format!("{} kept records had times outside the valid range", report.times_replaced));
    }
    refuse(shared, bundle, index, report.rejected, report.accepted, lines.join("\n"))
}

fn refuse(shared: &Shared, bundle: &Bundle, index: usize, refused: u64, kept: u64, reason: String) -> Option<Refusal> {
    let input = bundle.items[index].input.as_ref()?;
    Some(Refusal {
        organization: Some(bundle.organization),
        signal: Some(bundle.queue.signal),
        bucket: input.bucket.clone(),
        object_key: input.object_key.clone(),
        records_refused: refused,
        records_kept: kept,
        reason,
        at: shared.deps.clock.now(),
    })
}
