//! Cutting a run of segments, ordered by time, into merges.

use super::Candidate;

/// How many segments one merge may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct FanIn {
    /// At most this many, when they are large.
    pub large: usize,
    /// At most this many while all of them together are small.
    pub small: usize,
    /// Up to this many bytes together are small.
    pub small_bytes: u64,
}

impl FanIn {
    fn admits(self, count: usize, bytes: u64) -> bool {
        count <= self.large || (count <= self.small && bytes <= self.small_bytes)
    }
}

/// Cuts `segments` into groups of neighbours. A group is closed once it has half of `max_bytes`, or when the next one would
/// take it over `max_bytes` or the fan-in; a last group below `min_bytes` joins the one before it where that is allowed.
pub(super) fn pack<'a>(
    segments: &[&'a Candidate],
    min_bytes: u64,
    max_bytes: u64,
    fan_in: FanIn,
) -> Vec<Vec<&'a Candidate>> {
    let mut groups: Vec<(Vec<&Candidate>, u64)> = Vec::new();
    for segment in segments {
        match groups.last_mut() {
            Some((group, bytes))
                if *bytes < max_bytes / 2
                    && bytes.saturating_add(segment.bytes) <= max_bytes
                    && fan_in.admits(group.len() + 1, *bytes + segment.bytes) =>
            {
                group.push(segment);
                *bytes += segment.bytes;
            }
            _ => groups.push((vec![segment], segment.bytes)),
        }
    }
    join_short_tail(&mut groups, min_bytes, max_bytes, fan_in);
    groups.into_iter().map(|(group, _)| group).collect()
}

fn join_short_tail(groups: &mut Vec<(Vec<&Candidate>, u64)>, min_bytes: u64, max_bytes: u64, fan_in: FanIn) {
    let [.., (before, before_bytes), (tail, tail_bytes)] = groups.as_slice() else { return };
    let (count, bytes) = (before.len() + tail.len(), before_bytes.saturating_add(*tail_bytes));
    if *tail_bytes >= min_bytes || bytes > max_bytes || !fan_in.admits(count, bytes) {
        return;
    }
    if let Some((tail, _)) = groups.pop()
        && let Some((before, before_bytes)) = groups.last_mut()
    {
        before.extend(tail);
        *before_bytes = bytes;
    }
}
