//! One live segment in about 200 bytes, and back to its catalog row.

use tidemill_types::{
    ByteRange, Day, LeaseToken, Level, OrganizationId, SegmentId, SegmentMeta, ServiceSet, TimeRange, WorkId,
    keys::SegmentKey,
};

use super::intern::Pool;
use crate::prune::SegmentQuery;

/// What segments share: buckets, organizations, sets of services.
#[derive(Debug, Default)]
pub(super) struct Names {
    buckets: Pool<String>,
    organizations: Pool<OrganizationId>,
    services: Pool<ServiceKey>,
}

/// `ServiceSet` with a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServiceKey(ServiceSet);

impl std::hash::Hash for ServiceKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match &self.0 {
            ServiceSet::Names(names) | ServiceSet::OfEveryRow(names) => names.hash(state),
            ServiceSet::Bloom(bits) => bits.hash(state),
        }
    }
}

impl Names {
    pub(super) fn services(&self, number: u32) -> &ServiceSet {
        &self.services.get(number).0
    }

    pub(super) fn organization(&mut self, id: OrganizationId) -> u32 {
        self.organizations.hold(&id)
    }

    pub(super) fn organization_id(&self, number: u32) -> OrganizationId {
        *self.organizations.get(number)
    }

    pub(super) fn release(&mut self, segment: &CompactSegment, organization: u32) {
        self.organizations.release(organization);
        self.buckets.release(segment.bucket);
        self.services.release(segment.services);
    }
}

/// The object key: its own parts where it follows [`SegmentKey`], else its text.
#[derive(Debug)]
enum CompactKey {
    Parts { work: WorkId, token: LeaseToken, ordinal: u32 },
    Text(Box<str>),
}

/// One row. Ranges keep their full width: an object may have any size up to the store's limit.
#[derive(Debug)]
pub(super) struct CompactSegment {
    pub(super) id: SegmentId,
    pub(super) time: TimeRange,
    pub(super) services: u32,
    pub(super) covers_ingest_seq: i64,
    bucket: u32,
    level: Level,
    day: Day,
    ingest_day: Day,
    instance_num: i32,
    rows: u64,
    pub(super) bytes: u64,
    footer: ByteRange,
    footer_hash: [u8; 32],
    index: ByteRange,
    key: CompactKey,
}

impl CompactSegment {
    pub(super) fn new(meta: &SegmentMeta, names: &mut Names) -> Self {
        Self {
            id: meta.id,
            time: meta.time,
            services: names.services.hold(&ServiceKey(meta.services.clone())),
            covers_ingest_seq: meta.covers_ingest_seq,
            bucket: names.buckets.hold(&meta.bucket),
            level: meta.level,
            day: meta.day,
            ingest_day: meta.ingest_day,
            instance_num: meta.instance_num,
            rows: meta.rows,
            bytes: meta.bytes,
            footer: meta.footer,
            footer_hash: meta.footer_hash,
            index: meta.index,
            key: compact_key(meta),
        }
    }

    /// The catalog row, without its `etag`.
    pub(super) fn expand(&self, organization: OrganizationId, query: &SegmentQuery, names: &Names) -> SegmentMeta {
        let object_key = match &self.key {
            CompactKey::Text(text) => text.to_string(),
            CompactKey::Parts { work, token, ordinal } => SegmentKey {
                organization,
                signal: query.signal,
                day: self.day,
                tier: query.tier,
                level: self.level,
                work: *work,
                token: *token,
                ordinal: *ordinal,
            }
            .object_key(),
        };
        SegmentMeta {
            id: self.id,
            organization,
            signal: query.signal,
            tier: query.tier,
            level: self.level,
            day: self.day,
            time: self.time,
            ingest_day: self.ingest_day,
            rows: self.rows,
            bytes: self.bytes,
            bucket: names.buckets.get(self.bucket).clone(),
            instance_num: self.instance_num,
            object_key,
            etag: None,
            footer: self.footer,
            footer_hash: self.footer_hash,
            index: self.index,
            services: names.services(self.services).clone(),
            covers_ingest_seq: self.covers_ingest_seq,
        }
    }
}

fn compact_key(meta: &SegmentMeta) -> CompactKey {
    let text = || CompactKey::Text(meta.object_key.as_str().into());
    let Some((work, token, ordinal)) = parse_parts(&meta.object_key) else { return text() };
    let SegmentMeta { organization, signal, day, tier, level, .. } = *meta;
    let key = SegmentKey { organization, signal, day, tier, level, work, token, ordinal };
    if key.object_key() == meta.object_key { CompactKey::Parts { work, token, ordinal } } else { text() }
}

fn parse_parts(key: &str) -> Option<(WorkId, LeaseToken, u32)> {
    let name = key.rsplit('/').next()?.strip_suffix(".parquet")?;
    let (rest, ordinal) = name.rsplit_once('-')?;
    let (work, token) = rest.rsplit_once('-')?;
    Some((WorkId(work.parse().ok()?), token.parse().ok()?, ordinal.parse().ok()?))
}
