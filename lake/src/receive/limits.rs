//! Reasons to turn a request away before reading it: a closed gate, or an organization above its ingest rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tidemill_store::metastore::Organization;
use tidemill_types::OrganizationId;

use crate::{Error, Result};

/// Whether ingest is open, by whatever way something comes in; whoever watches a bound closes it with the reason that senders read.
/// Clones share the bounds, and what each organization has used of its rate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Bounds>);

#[derive(Debug, Default)]
struct Bounds {
    closed: ArcSwapOption<String>,
    rates: Rates,
}

impl Gate {
    /// Turns every request away with `reason` from now on.
    pub fn close(&self, reason: impl Into<String>) {
        self.0.closed.store(Some(Arc::new(reason.into())));
    }

    /// Lets requests in again.
    pub fn open(&self) {
        self.0.closed.store(None);
    }

    /// Why the gate is closed, if it is.
    pub fn closed_because(&self) -> Option<String> {
        self.0.closed.load().as_deref().cloned()
    }

    /// # Errors
    /// `Busy` with the reason while the gate is closed.
    pub fn check(&self) -> Result<()> {
        match self.closed_because() {
            Some(reason) => Err(Error::Busy { reason, retry_after: Duration::from_secs(10) }),
            None => Ok(()),
        }
    }

    /// # Errors
    /// `Busy` with the reason while the gate is closed or the organization is above its rate.
    pub fn check_for(&self, organization: OrganizationId) -> Result<()> {
        self.check().and_then(|()| self.0.rates.check(organization))
    }

    /// Counts bytes against the organization's rate that were let in already.
    pub fn charge(&self, organization: OrganizationId, bytes: u64) {
        self.0.rates.charge(organization, bytes);
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }
}

/// The ingest rates of organizations.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<OrganizationId, Bucket>>);

impl Rates {
    /// Takes the limits from the metastore's rows; what an organization has used so far is kept.
    pub fn refresh(&self, organizations: &[Organization], now: Instant) {
        let mut buckets = self.0.lock();
        let mut next = HashMap::new();
        for organization in organizations {
            if let Some(rate) = organization.ingest_bytes_per_second {
                let mut bucket = buckets.remove(&organization.id).unwrap_or_else(|| Bucket::full(rate, now));
                bucket.rate = rate;
                next.insert(organization.id, bucket);
            }
        }
        *buckets = next;
    }

    pub fn check(&self, organization: OrganizationId) -> Result<()> {
        self.take(organization, 0)
    }

    /// Takes what was let in already.
    pub fn charge(&self, organization: OrganizationId, bytes: u64) {
        if let Some(bucket) = self.0.lock().get_mut(&organization) {
            bucket.fill(Instant::now());
            bucket.left_bytes -= bytes as f64;
        }
    }

    pub fn take(&self, organization: OrganizationId, bytes: u64) -> Result<()> {
        match self.0.lock().get_mut(&organization) {
            Some(bucket) => bucket.take(bytes, Instant::now()).map_err(|wait| Error::Busy {
                reason: format!("the organization's ingest rate of {} bytes a second is reached", bucket.rate),
                retry_after: wait,
            }),
            None => Ok(()),
        }
    }
}

/// A token bucket that holds two seconds' worth. A request is let in while anything is left and may overdraw it, so that a
/// request larger than the bucket is possible and is paid for by waiting.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    left_bytes: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(rate: u64, now: Instant) -> Self {
        Self { rate, left_bytes: 2.0 * rate as f64, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let rate = self.rate as f64;
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.left_bytes = (self.left_bytes + passed * rate).min(2.0 * rate);
        self.filled_at = now;
    }

    fn take(&mut self, bytes: u64, now: Instant) -> std::result::Result<(), Duration> {
        let rate = self.rate as f64;
        self.fill(now);
        if self.left_bytes <= 0.0 {
            let wait_s = if rate > 0.0 { (-self.left_bytes / rate).clamp(1.0, 3600.0) } else { 3600.0 };
            return Err(Duration::from_secs_f64(wait_s));
        }
        self.left_bytes -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overdrawn_rate_is_paid_by_waiting() {
        let start = Instant::now();
        let mut bucket = Bucket::full(100, start);
        bucket.take(500, start).expect("something is left");
        let wait = bucket.take(1, start).expect_err("overdrawn by 300 bytes");
        assert_eq!(wait, Duration::from_secs(3));
        bucket.take(1, start + Duration::from_secs(4)).expect("paid");
    }

    #[test]
    fn a_closed_gate_tells_its_reason() {
        let gate = Gate::default();
        gate.check().expect("open at first");
        gate.close("the disk is full");
        assert!(gate.check().expect_err("closed").to_string().contains("the disk is full"));
        gate.open();
        gate.check().expect("open again");
    }
}
