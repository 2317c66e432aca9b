//! Which resources a horizontal and a vertical autoscaler of one target would fight over.

use super::policy::{Policy, Resource, UpdateMode};
use crate::hpa::{self, Metric, ResourceTarget};

/// A resource that both would move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedResource {
    /// The resource.
    pub resource: Resource,
}

/// The resources whose *utilization* the horizontal one follows while the vertical one changes their requests.
///
/// A utilization is a share of the request, so each vertical change moves the horizontal target and the two chase each other. An absolute
/// target (`averageValue`) does not depend on requests and is stable, and so are separate resources and a vertical mode that changes nothing.
pub fn shared_resources(horizontal: &hpa::Policy, vertical: &Policy) -> Vec<SharedResource> {
    if vertical.update_mode == UpdateMode::Off {
        return Vec::new();
    }
    let follows = |wanted: Resource| {
        horizontal.metrics.iter().any(|metric| match metric {
            Metric::Resource { resource, target: ResourceTarget::Utilization { .. } } => resource == wanted.name(),
            Metric::ContainerResource { resource, target: ResourceTarget::Utilization { .. }, .. } => {
                resource == wanted.name()
            }
            _ => false,
        })
    };
    let sizes = |wanted: Resource| {
        vertical.containers.is_empty()
            || vertical.containers.iter().any(|policy| policy.is_scaled && policy.controlled.contains(&wanted))
    };
    let shared = Resource::ALL.into_iter().filter(|resource| follows(*resource) && sizes(*resource));
    shared.map(|resource| SharedResource { resource }).collect()
}
