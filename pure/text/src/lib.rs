//! What is known of texts: tokens, what a searched literal says about them, patterns of log bodies, and the stable hashes of all of these.
//!
//! Pure: no I/O, no clock. Everything here decides bytes in segments or catalog rows, so a change of meaning is a change of format;
//! tests pin the values. Start with [`tokens`].

mod hash;
mod labels;
mod literal;
mod pattern;
pub mod prometheus;
mod series;
mod service_bloom;
mod tokens;

pub use hash::{TermHasher, term_hash};
pub use labels::{LabelValue, encode_labels};
pub use literal::{Piece, literal_pieces};
pub use pattern::pattern_hash;
pub use series::{MetricHash, ScopeHash, SeriesMetric};
pub use service_bloom::{BLOOM_BYTES, bloom_may_contain, service_bloom};
pub use tokens::{MAX_TOKEN_BYTES, Token, Tokens, tokens};
