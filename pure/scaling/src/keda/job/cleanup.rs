//! Which finished jobs are more than the history keeps.

use super::{Job, JobPhase, Policy};
use crate::decision::{Action, JobDeletion, Reason};

/// The oldest finished jobs beyond the limits. Both kinds are ordered by the transition of their condition; KEDA orders failed ones by a
/// completion time that they do not have.
pub(super) fn trim_history(policy: &Policy, jobs: &[&Job]) -> Option<(Action, Reason)> {
    let mut names = Vec::new();
    for (phase, keep) in [(JobPhase::Complete, policy.successful_history), (JobPhase::Failed, policy.failed_history)] {
        let mut finished: Vec<&&Job> = jobs.iter().filter(|job| job.phase == phase).collect();
        finished.sort_by(|a, b| (a.finished_at, &a.name).cmp(&(b.finished_at, &b.name)));
        let excess = finished.len().saturating_sub(keep);
        names.extend(finished.into_iter().take(excess).map(|job| job.name.clone()));
    }
    if names.is_empty() {
        return None;
    }
    let message = format!("{} finished jobs are more than the history keeps", names.len());
    let reason = Reason::new("JobHistoryTrimmed", message)
        .with("successful_history", policy.successful_history)
        .with("failed_history", policy.failed_history);
    Some((Action::DeleteJobs { names, why: JobDeletion::History }, reason))
}
