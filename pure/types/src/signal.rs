//! Signals, levels and tiers: the three coordinates of a segment besides organization and time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of OpenTelemetry's three signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Log records.
    Logs,
    /// Metric data points.
    Metrics,
    /// Spans.
    Traces,
}

impl Signal {
    /// Every signal, in the order in which they are listed everywhere.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Metrics, Self::Traces];

    /// The name in object keys, APIs and the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }

    /// The SQL table whose rows this signal's records are.
    pub fn table(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "spans",
        }
    }

    /// The number stored in the catalog and the queue.
    pub fn code(self) -> i16 {
        match self {
            Self::Logs => 1,
            Self::Metrics => 2,
            Self::Traces => 3,
        }
    }

    /// The signal stored as `code`.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.code() == code)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "logs" => Ok(Self::Logs),
            "metrics" => Ok(Self::Metrics),
            "traces" => Ok(Self::Traces),
            other => Err(format!("{other:?} is not a signal; one of logs, metrics, traces")),
        }
    }
}

/// How far a segment has been compacted: 0 arrival-fast, 1 indexed, 2 closed hour or day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(pub u8);

/// The resolution of a segment's rows: 0 for rows as they came, else the rollup's window in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tier(pub u32);

impl Tier {
    /// Rows as they came.
    pub const RAW: Self = Self(0);
    /// The rollup windows, finest first; each is computed from the one before it, the first from raw rows.
    pub const ROLLUPS: [Self; 5] = [Self(10), Self(60), Self(300), Self(1200), Self(3600)];

    /// The tier that this one is computed from, `None` for raw rows and unknown windows.
    pub fn finer(self) -> Option<Self> {
        let place = Self::ROLLUPS.iter().position(|tier| *tier == self)?;
        Some(if place == 0 { Self::RAW } else { Self::ROLLUPS[place - 1] })
    }

    /// The window's length in nanoseconds, 0 for raw rows.
    pub fn window_ns(self) -> i64 {
        i64::from(self.0) * crate::NANOS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rollup_is_computed_from_the_next_finer() {
        assert_eq!(Tier(10).finer(), Some(Tier::RAW));
        assert_eq!(Tier(3600).finer(), Some(Tier(1200)));
        assert_eq!(Tier::RAW.finer(), None);
        assert_eq!(Tier(7).finer(), None);
    }

    #[test]
    fn signal_codes_round_trip() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_code(signal.code()), Some(signal));
            assert_eq!(signal.as_str().parse(), Ok(signal));
        }
        assert_eq!(Signal::from_code(0), None);
    }
}
