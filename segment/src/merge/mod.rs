//! Merging segments into a higher level.
