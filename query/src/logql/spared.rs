//! What need not be read of a segment, as the answer is the same without.

use tidemill_eval::logql::InstantWindows;

use super::labels::WantedLabels;
use crate::scan::{OpenSegment, OutputColumn};
use crate::tables::LogicalColumn;

/// Which columns of log lines their reader can do without; none by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct SparedColumns {
    /// Attributes matter only where one of them may give one of these labels; everywhere where there are none.
    pub(super) wanted: Option<WantedLabels>,
    /// Times matter only where these tell them apart; everywhere where there are none.
    pub(super) windows: Option<InstantWindows>,
}

impl SparedColumns {
    /// How a column is read of one segment.
    pub(crate) fn column(&self, column: LogicalColumn, open: &OpenSegment) -> OutputColumn {
        match (&column, &self.wanted, &self.windows) {
            (LogicalColumn::Object(scope), Some(wanted), _)
                if !open.may_have(*scope, |key| wanted.may_come_from(key)) =>
            {
                OutputColumn::EmptyObject
            }
            (LogicalColumn::Plain(name), _, Some(windows)) if name == "time" => {
                let (first, last) = (open.meta.time.start.0, open.meta.time.end.0.saturating_sub(1));
                if windows.tell_apart(first, last) { OutputColumn::Read(column) } else { OutputColumn::Time(first) }
            }
            _ => OutputColumn::Read(column),
        }
    }
}
