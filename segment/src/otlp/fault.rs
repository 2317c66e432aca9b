//! What is wrong with a record and where; the path grows outward while the error travels.

use super::wire::WireFault;
use crate::ingest::Issue;

/// A refusal of one record. Boxed, so that the good path carries one pointer.
#[derive(Debug)]
pub(crate) struct Fault(Box<Issue>);

impl Fault {
    /// `reason`, at no place yet.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(Issue { path: String::new(), reason: reason.into() }))
    }

    /// The same fault, one step further out: `step` before the path so far.
    pub(crate) fn within(mut self, step: &str) -> Self {
        let path = &mut self.0.path;
        if path.is_empty() || path.starts_with('[') {
            path.insert_str(0, step);
        } else {
            path.insert_str(0, &format!("{step}."));
        }
        self
    }

    /// The same fault in element `index` of the list `step`.
    pub(crate) fn within_item(self, step: &str, index: usize) -> Self {
        self.within(&format!("{step}[{index}]"))
    }

    /// The finished issue.
    pub(crate) fn into_issue(self) -> Issue {
        *self.0
    }
}

impl From<WireFault> for Fault {
    fn from(fault: WireFault) -> Self {
        Self::new(fault.to_string())
    }
}

/// Names the field in which a wire fault happened.
pub(crate) trait InField<T> {
    /// The same result, its fault placed in `field`.
    fn in_field(self, field: &str) -> Result<T, Fault>;
}

impl<T, E: Into<Fault>> InField<T> for Result<T, E> {
    #[inline]
    fn in_field(self, field: &str) -> Result<T, Fault> {
        self.map_err(|fault| fault.into().within(field))
    }
}
