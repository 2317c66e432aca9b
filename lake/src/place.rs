//! Where an organization's objects are written. The storage profiles behind it belong to the server.

use std::fmt::Debug;

use tidemill_types::{OrganizationId, Signal};

use crate::Result;

/// A bucket and the storage profile instance that names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The bucket, as the storage profile names it.
    pub bucket: String,
    /// The storage profile instance.
    pub instance_num: i32,
}

/// Looks up where things are written; answers change when profiles change, without a restart.
pub trait Placement: Send + Sync + Debug + 'static {
    /// Where requests pushed by `collector` are written.
    ///
    /// # Errors
    /// `Invalid` when no profile of the organization serves the collector.
    fn for_push(&self, organization: OrganizationId, collector: &str) -> Result<Place>;

    /// Where segments of an instance are written.
    ///
    /// # Errors
    /// `Invalid` when the organization has no such instance any more.
    fn for_segments(&self, organization: OrganizationId, instance_num: i32) -> Result<Place>;

    /// Attribute names that every segment promotes to columns, in order of preference.
    fn promoted(&self, organization: OrganizationId, signal: Signal) -> Vec<String> {
        let _ = (organization, signal);
        Vec::new()
    }

    /// The storage profile instance that a bucket is to an organization; 1 where no profile tells.
    fn instance_of(&self, organization: OrganizationId, bucket: &str) -> i32 {
        let _ = (organization, bucket);
        1
    }
}

/// One bucket for everything: the embedded default.
#[derive(Debug, Clone)]
pub struct OnePlace(pub Place);

impl OnePlace {
    /// Everything goes to `bucket` as instance 1.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self(Place { bucket: bucket.into(), instance_num: 1 })
    }
}

impl Placement for OnePlace {
    fn for_push(&self, _: OrganizationId, _: &str) -> Result<Place> {
        Ok(self.0.clone())
    }

    fn for_segments(&self, _: OrganizationId, instance_num: i32) -> Result<Place> {
        Ok(Place { instance_num, ..self.0.clone() })
    }
}
