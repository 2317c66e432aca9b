//! Histograms as text.

use std::fmt::{self, Display, Formatter};

use super::{Bucket, Histogram};
use crate::number::format_short;

impl Display for Histogram {
    /// `{count:4, sum:3.5, [-0.001,0.001]:1, (0.5,1]:3}`: the populated buckets, rising.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_short(self.count), format_short(self.sum))?;
        let zero = Some(self.zero_bucket()).filter(|_| !self.is_custom());
        for bucket in self.negative_buckets().rev().chain(zero).chain(self.positive_buckets()) {
            if bucket.count != 0.0 {
                write!(f, ", {bucket}")?;
            }
        }
        f.write_str("}")
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let opening = if self.lower < 0.0 { '[' } else { '(' };
        let closing = if self.upper > 0.0 { ']' } else { ')' };
        let (lower, upper) = (format_short(self.lower), format_short(self.upper));
        write!(f, "{opening}{lower},{upper}{closing}:{}", format_short(self.count))
    }
}
