//! The policies of manifests, by the workload that they are for.

use std::path::PathBuf;

use clap::Args;
use tidemill_scaling::manifest::{Body, Object, TargetRef};
use tidemill_scaling::record::Policy;
use tidemill_sim::{Contender, Size};

use crate::commands::lint::read_all;
use crate::error::{Error, Result};

/// Which policies run.
#[derive(Debug, Args)]
pub struct PolicyOptions {
    /// A manifest, or a folder of them, with policies and the workloads that they size; repeatable
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also run a CPU HPA, KEDA with its defaults and at its best, exact jobs, backlog, and backlog with a forecast
    #[arg(long)]
    compare: bool,
    /// Run the policies of files the native way
    #[arg(long)]
    native: bool,
    /// The largest size of the policies of --compare
    #[arg(long, default_value_t = 50, value_name = "REPLICAS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    max_replicas: i32,
}

/// The contenders of each workload, in the order of the manifests.
///
/// # Errors
/// `Invalid` with every problem of every manifest.
pub fn workloads(options: &PolicyOptions, startup_ms: i64) -> Result<Vec<(String, Vec<Contender>)>> {
    let (objects, problems) = read_all(&options.files)?;
    if !problems.is_empty() {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}:{}: {}: {}", problem.file, problem.line, problem.path, problem.message))
            .collect();
        return Err(Error::invalid(lines.join("\n")));
    }
    let mut workloads: Vec<(String, Vec<Contender>)> = Vec::new();
    for object in &objects {
        let Some(contender) = contender(object, &objects, options.native) else { continue };
        let name = contender.workload.clone();
        match workloads.iter_mut().find(|(known, _)| *known == name) {
            Some((_, contenders)) => contenders.push(contender),
            None => workloads.push((name, vec![contender])),
        }
    }
    for object in &objects {
        let Body::Vertical { target, policy } = &object.body else { continue };
        let name = format!("{} {}", object.kind, object.name);
        let Some((_, contenders)) = workloads.iter_mut().find(|(known, _)| *known == target.name) else {
            let alone = Contender {
                workload: target.name.clone(),
                size: size_of(object, target, &objects),
                ..Contender::upstream(&name, Policy::VerticalPodAutoscaler((**policy).clone()))
            };
            workloads.push((target.name.clone(), vec![alone]));
            continue;
        };
        contenders.iter_mut().for_each(|contender| contender.join_vertical(&name, policy));
    }
    if options.compare {
        let compared = Contender::comparison(options.max_replicas, startup_ms);
        if workloads.is_empty() {
            workloads.push(("queue".to_owned(), Vec::new()));
        }
        for (name, contenders) in &mut workloads {
            let size = contenders.first().map_or_else(Size::default, |first| first.size.clone());
            let named = |one: &Contender| Contender { workload: name.clone(), size: size.clone(), ..one.clone() };
            contenders.extend(compared.iter().map(named));
        }
    }
    Ok(workloads)
}

fn contender(object: &Object, objects: &[Object], is_native: bool) -> Option<Contender> {
    let (policy, target) = match &object.body {
        Body::ScaledObject { policy, target, .. } => (Policy::ScaledObject(policy.clone()), Some(target)),
        Body::ScaledJob { policy, .. } => (Policy::ScaledJob((**policy).clone()), None),
        Body::Horizontal { policy, target } => (Policy::HorizontalPodAutoscaler((**policy).clone()), Some(target)),
        _ => return None,
    };
    let name = format!("{} {}", object.kind, object.name);
    let contender = if is_native { Contender::native(&name, policy) } else { Contender::upstream(&name, policy) };
    Some(Contender {
        workload: target.map_or(&object.name, |target| &target.name).clone(),
        size: target.map_or_else(Size::default, |target| size_of(object, target, objects)),
        ..contender
    })
}

/// What the workload of a target requests; what is not written stays at the world's own.
fn size_of(from: &Object, target: &TargetRef, objects: &[Object]) -> Size {
    let workload = objects.iter().find_map(|object| match &object.body {
        Body::Workload(workload)
            if object.kind == target.kind && object.name == target.name && object.namespace == from.namespace =>
        {
            Some(workload)
        }
        _ => None,
    });
    let mut size = Size::default();
    let Some(workload) = workload else { return size };
    size.replicas = workload.replicas.unwrap_or(size.replicas);
    if let Some(container) = workload.containers.first() {
        size.container = container.name.clone();
        size.limits = container.limits;
        size.requests = container.requests;
    }
    size
}
