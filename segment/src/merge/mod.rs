//! Merging segments of one (organization, signal, day, ingest-day class) into fewer of a higher level, with indexes.
//!
//! No row is dropped: samples of equal series and time stay, resolved at read (I-2). Rows of logs are cut into slices of time, sorted
//! inside by (severity class, stream, pattern, time); points are sorted by (name, series, time) and spans by (trace id, time) over the whole segment.
//! Memory is bounded by batches of each open input and by what waits to be written ([`RUN_MEMORY_BYTES`] of sorted runs, or the rows of
//! later slices), which spills beyond that.
//! Texts are tokenized again; mapping the indexes of the inputs would save that. Start with [`merge_segments`].

mod attributes;
mod input;
mod logs;
mod output;
mod properties;
mod rest;
mod runs;
mod series;
mod slices;
mod sorted;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use tidemill_types::{Level, SegmentMeta, Signal, TimestampNs};

use crate::draft::DraftSegment;
use crate::error::{Error, Result};
use crate::schema::core_fields;

pub(crate) use attributes::MergePlan;
pub(crate) use output::{gather, text_at};
pub(crate) use properties::compacted_properties;
pub(crate) use sorted::each_sorted;

/// Sorted runs of points and spans are kept in memory up to this size.
pub const RUN_MEMORY_BYTES: usize = 96 << 20;

/// A segment to be merged, downloaded.
#[derive(Debug, Clone)]
pub struct MergeInput {
    /// Its catalog row.
    pub meta: SegmentMeta,
    /// The object's bytes.
    pub file: PathBuf,
}

/// What a merge makes.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// The level of the outputs.
    pub level: Level,
    /// Attribute keys that get a column before any others.
    pub promote: Vec<String>,
    /// Folder for what does not fit in memory.
    pub spool: PathBuf,
    /// About how large an output may become.
    pub target_bytes: u64,
}

/// Merges all rows of `inputs` into segments of about `options.target_bytes` each.
///
/// The outputs together have exactly the rows of the inputs and name them in their footers (`replaces`, `outputs`, `ordinal`).
///
/// # Errors
/// When the inputs do not belong together or one is not a segment, and when the spool fails. The inputs are never changed.
pub fn merge_segments(inputs: Vec<MergeInput>, options: MergeOptions) -> Result<Vec<DraftSegment>> {
    merge_segments_since(inputs, options, TimestampNs(i64::MIN))
}

/// The same, but of the requests behind the inputs only those that arrived at `requests_from` or later are still listed.
///
/// # Errors
/// As [`merge_segments`].
pub fn merge_segments_since(
    inputs: Vec<MergeInput>,
    options: MergeOptions,
    requests_from: TimestampNs,
) -> Result<Vec<DraftSegment>> {
    check_inputs(&inputs)?;
    let core = core_fields(inputs[0].meta.signal);
    let mut plan = MergePlan::open(inputs, options, core)?;
    plan.gather_identities(requests_from)?;
    let expected = plan.rows();
    let drafts = match plan.signal {
        Signal::Logs => logs::merge_logs(&plan)?,
        Signal::Metrics | Signal::Traces => sorted::merge_sorted(&plan)?,
    };
    let written: u64 = drafts.iter().map(|draft| draft.rows).sum();
    if written != expected {
        let problem = format!("the inputs have {expected} rows and the outputs {written}");
        return Err(Error::Corrupt { subject: "merge".to_owned(), problem });
    }
    Ok(drafts)
}

fn check_inputs(inputs: &[MergeInput]) -> Result<()> {
    let Some(first) = inputs.first() else {
        return Err(Error::Invalid { problem: "a merge needs at least one segment".to_owned() });
    };
    let place = |input: &MergeInput| (input.meta.organization, input.meta.signal, input.meta.day, input.meta.tier);
    match inputs.iter().find(|input| place(input) != place(first)) {
        None => Ok(()),
        Some(other) => Err(Error::Invalid {
            problem: format!(
                "{} and {} are of different organizations, signals, days or tiers and cannot be merged",
                first.meta.object_key, other.meta.object_key
            ),
        }),
    }
}
