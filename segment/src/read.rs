//! How readers see a segment: its footer, and which physical columns make a logical one.

mod meta;
mod trace_column;

pub use crate::footer::{AttributeEntry, IndexPart, SegmentFooter, ValueType};
pub use crate::schema::{AttributeScope, AttributeType, PromotedColumn};
pub use meta::{StoredObject, parse_footer, segment_meta};
pub use trace_column::TraceColumn;
