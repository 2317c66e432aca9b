//! Drafts as the stored segments that merges and rollups take.

use std::path::Path;

use bytes::Bytes;
use tidemill_segment::merge::MergeInput;
use tidemill_segment::{DraftBody, DraftSegment};
use tidemill_types::keys::SegmentKey;
use tidemill_types::{LeaseToken, OrganizationId, WorkId};

/// The bytes of a draft.
pub fn draft_bytes(draft: &DraftSegment) -> Bytes {
    match &draft.body {
        DraftBody::Memory(bytes) => bytes.clone(),
        DraftBody::File(file) => std::fs::read(file.path()).expect("the spool file is there").into(),
    }
}

/// Stores a draft in `folder` under a key of its own.
pub fn store(folder: &Path, draft: &DraftSegment, work: i64) -> MergeInput {
    let key = SegmentKey {
        organization: OrganizationId("dddddddd-aaaa-4ff9-ae8f-365873c552f0".parse().expect("a UUID")),
        signal: draft.signal,
        day: draft.day,
        tier: draft.tier,
        level: draft.level,
        work: WorkId(work),
        token: LeaseToken("dddddddd-aaaa-4ff9-ae8f-365873c552f1".parse().expect("a UUID")),
        ordinal: 0,
    };
    let file = folder.join(format!("{}-{}-{work}.parquet", draft.signal, draft.day));
    std::fs::write(&file, draft_bytes(draft)).expect("writes");
    MergeInput { meta: draft.meta(&key, "lake", 1, None), file }
}
