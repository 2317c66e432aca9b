//! Which of the segments found in a bucket are live.
//!
//! A bucket holds more than the live segments: those that were replaced and wait for their grace to end, and uploads of leases
//! that were lost. Counting any row twice, or losing one, would break I-1. What decides:
//! - A segment made by ingest names its inputs, and a merged one the segments that it replaces; each says how many outputs its
//!   making had. A making of which an output is missing was never published, unless what it consumed is gone or it was merged
//!   on: inputs are deleted only after a publication, and before the outputs that replace them.
//! - Two makings of one input (or of one segment) exclude each other. The one whose outputs were merged on was published; else
//!   the complete one, the one whose consumed segments are gone, the one that covers more, the later one. Makings of equal
//!   inputs hold equal rows, so either is right.
//!
//! Pure; start with [`decide_live`].

use std::collections::{BTreeMap, HashSet};

use tidemill_types::{ByteRange, SegmentId, SegmentMeta, TimestampNs};

/// A segment object and what its footer says about its making.
#[derive(Debug, Clone)]
pub struct Found {
    /// The catalog row that it would have.
    pub meta: SegmentMeta,
    /// The segments that its making replaces; empty for ingest.
    pub replaces: Vec<SegmentId>,
    /// How many segments its making has.
    pub outputs: u32,
    /// Its place among them.
    pub ordinal: u32,
    /// For ingest, the inputs of its making, by hash.
    pub inputs: Vec<String>,
    /// Where it lists the identities of its inputs.
    pub identities: Option<ByteRange>,
    /// When the object was written.
    pub written_at: TimestampNs,
}

/// What the decision knows besides the segments.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Segments that the catalog already has as live; what made them was published.
    pub known: HashSet<SegmentId>,
    /// The raw objects that exist, by hash.
    pub raw_inputs: HashSet<String>,
    /// Inputs that the catalog will still ingest: what was made of them meanwhile is not adopted.
    pub pending_inputs: HashSet<String>,
    /// An incomplete upload from before this would have been swept.
    pub swept_before: TimestampNs,
}

/// What is live and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Hold every row once.
    pub live: HashSet<SegmentId>,
    /// Replaced by published ones.
    pub replaced: HashSet<SegmentId>,
    /// Never published: incomplete, or made again by another lease.
    pub unpublished: HashSet<SegmentId>,
    /// What published merges consumed, whether it still exists or not.
    pub consumed: HashSet<SegmentId>,
}

/// One transformation: its outputs, and what it consumed.
struct Making<'a> {
    outputs: Vec<&'a Found>,
    consumes: HashSet<Consumed<'a>>,
    is_merge: bool,
    is_complete: bool,
    written_at: TimestampNs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Consumed<'a> {
    Input(&'a str),
    Segment(SegmentId),
}

/// Decides which of `found` (raw rows of one bucket) are live.
pub fn decide_live(found: &[Found], around: &Surroundings) -> Decision {
    let makings: Vec<Making<'_>> = group(found).into_values().map(Making::new).collect();
    let chosen = choose(&makings, around);
    let consumed: HashSet<SegmentId> = chosen.iter().flat_map(|making| making.consumed_segments()).collect();
    let published: HashSet<SegmentId> = chosen.iter().flat_map(|making| making.ids()).collect();
    let mut decision = Decision::default();
    for id in found.iter().map(|one| one.meta.id) {
        match (published.contains(&id), consumed.contains(&id)) {
            (true, false) => decision.live.insert(id),
            (_, true) => decision.replaced.insert(id),
            (false, false) => decision.unpublished.insert(id),
        };
    }
    decision.consumed = consumed;
    decision
}

impl Consumed<'_> {
    fn segment(&self) -> Option<SegmentId> {
        match self {
            Self::Segment(id) => Some(*id),
            Self::Input(_) => None,
        }
    }
}

impl<'a> Making<'a> {
    fn new(outputs: Vec<&'a Found>) -> Self {
        let first = outputs[0];
        let is_merge = !first.replaces.is_empty();
        let consumes = if is_merge {
            first.replaces.iter().map(|id| Consumed::Segment(*id)).collect()
        } else {
            first.inputs.iter().map(|hash| Consumed::Input(hash)).collect()
        };
        let written_at = outputs.iter().map(|one| one.written_at).max().unwrap_or_default();
        let is_complete = is_complete(&outputs);
        Self { outputs, consumes, is_merge, is_complete, written_at }
    }

    fn ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.outputs.iter().map(|one| one.meta.id)
    }

    fn consumed_segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.consumes.iter().filter_map(Consumed::segment)
    }

    /// Whether one of its inputs is still to be ingested.
    fn waits(&self, around: &Surroundings) -> bool {
        self.consumes.iter().any(|one| matches!(one, Consumed::Input(hash) if around.pending_inputs.contains(*hash)))
    }

    /// Whether all that it consumed is gone, which only a publication brings about.
    fn has_used_up(&self, present: &HashSet<SegmentId>, around: &Surroundings) -> bool {
        let is_gone = |one: &Consumed<'_>| match one {
            Consumed::Segment(id) => !present.contains(id),
            Consumed::Input(hash) => !around.raw_inputs.contains(*hash),
        };
        // An input that is no raw object of ours is not deleted; then only time tells.
        self.consumes.iter().all(is_gone) && (self.is_merge || self.written_at < around.swept_before)
    }
}

/// Outputs by their making: one lease's prefix of the key, and what was replaced.
fn group(found: &[Found]) -> BTreeMap<(String, Vec<SegmentId>), Vec<&Found>> {
    let mut groups: BTreeMap<(String, Vec<SegmentId>), Vec<&Found>> = BTreeMap::new();
    for one in found {
        let mut replaces = one.replaces.clone();
        replaces.sort();
        groups.entry((lease_of(&one.meta.object_key), replaces)).or_default().push(one);
    }
    groups
}

/// `<work>-<token>` of an object key. The day and level before it differ between the outputs of one lease.
fn lease_of(object_key: &str) -> String {
    let name = object_key.rsplit('/').next().unwrap_or(object_key);
    name.rsplit_once('-').map_or(name, |(lease, _)| lease).to_owned()
}

fn is_complete(outputs: &[&Found]) -> bool {
    let places: HashSet<u32> = outputs.iter().map(|one| one.ordinal).collect();
    outputs.iter().all(|one| one.outputs as usize == outputs.len()) && places.len() == outputs.len()
}

/// Makings of which no two consume the same, the surest first.
fn choose<'m, 'a>(makings: &'m [Making<'a>], around: &Surroundings) -> Vec<&'m Making<'a>> {
    let present: HashSet<SegmentId> = makings.iter().flat_map(Making::ids).collect();
    let merged_on: HashSet<SegmentId> =
        makings.iter().filter(|making| making.is_complete).flat_map(Making::consumed_segments).collect();
    let mut order: Vec<(_, &Making<'_>)> = Vec::with_capacity(makings.len());
    for making in makings {
        let is_known = making.ids().any(|id| around.known.contains(&id));
        let was_merged_on = making.ids().any(|id| merged_on.contains(&id));
        if !is_known && making.waits(around) {
            continue;
        }
        if !making.is_complete && !is_known && !was_merged_on && !making.has_used_up(&present, around) {
            continue;
        }
        let gone = making.consumed_segments().filter(|id| !present.contains(id)).count();
        let evidence = (is_known, was_merged_on, making.is_complete, gone, making.consumes.len(), making.written_at);
        // The id comes last, so that equal evidence is decided the same way every time.
        order.push(((std::cmp::Reverse(evidence), making.outputs[0].meta.id), making));
    }
    order.sort_by_key(|(rank, _)| *rank);
    let mut taken: HashSet<Consumed<'_>> = HashSet::new();
    let mut chosen: Vec<&Making<'_>> = Vec::new();
    for (_, making) in order {
        if making.consumes.iter().all(|one| !taken.contains(one)) {
            taken.extend(making.consumes.iter().copied());
            chosen.push(making);
        }
    }
    drop_merges_without_ground(chosen, &present, &around.known)
}

/// A merge stands only on what is published itself or already gone. An orphaned merge of a lost upload falls with it.
fn drop_merges_without_ground<'m, 'a>(
    mut chosen: Vec<&'m Making<'a>>,
    present: &HashSet<SegmentId>,
    known: &HashSet<SegmentId>,
) -> Vec<&'m Making<'a>> {
    loop {
        let published: HashSet<SegmentId> = chosen.iter().flat_map(|making| making.ids()).collect();
        let before = chosen.len();
        chosen.retain(|making| {
            let stands = |id| published.contains(&id) || known.contains(&id) || !present.contains(&id);
            !making.is_merge || making.ids().any(|id| known.contains(&id)) || making.consumed_segments().all(stands)
        });
        if chosen.len() == before {
            return chosen;
        }
    }
}

#[cfg(test)]
mod tests;
