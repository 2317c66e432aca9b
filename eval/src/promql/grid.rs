//! The times at which a query is evaluated.

/// Times from a start to an end, a step apart, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// The first time.
    pub start: i64,
    /// The end; the last time is at or before it.
    pub end: i64,
    /// The distance of the times, above zero.
    pub step: i64,
}

impl Grid {
    /// The one time `at`.
    pub fn instant(at: i64) -> Self {
        Self { start: at, end: at, step: 1 }
    }

    /// How many times there are.
    pub fn len(&self) -> usize {
        if self.end < self.start {
            return 0;
        }
        usize::try_from((self.end - self.start) / self.step + 1).unwrap_or(usize::MAX)
    }

    /// Whether there is no time.
    pub fn is_empty(&self) -> bool {
        self.end < self.start
    }

    /// The times.
    pub fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let (start, step) = (self.start, self.step);
        (0..self.len()).map(move |at| start + step * at as i64)
    }

    /// Whether it is one time only.
    pub fn is_instant(&self) -> bool {
        self.start == self.end
    }
}
