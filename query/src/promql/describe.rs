//! Which series, labels and metrics there are.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_eval::promql::Select;
use tidemill_eval::{Labels, METRIC_NAME, Matcher, Result as EvalResult};
use tidemill_types::{OrganizationId, Tier, TimeRange};

use super::conditions::Conditions;
use super::select::{Reader, time_range};
use super::series::{Role, TARGET_INFO};
use super::{PromqlLimits, failed, within};
use crate::{QueryEngine, Result};

/// Which series are asked about.
#[derive(Debug, Clone)]
pub struct LabelSelect {
    /// Selectors, of which a series meets one; none for every series.
    pub selectors: Vec<Vec<Matcher>>,
    /// The first time, in milliseconds since 1970, inclusive.
    pub start_ms: i64,
    /// The last time, inclusive.
    pub end_ms: i64,
}

/// What is known of a metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricMetadata {
    /// `counter`, `gauge`, `histogram`, `summary` or `unknown`.
    pub kind: &'static str,
    /// What it is for, as its sender says.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

impl QueryEngine {
    /// The series that are asked about, by their labels. Series whose segments reach into the time may be among them though no sample does.
    ///
    /// # Errors
    /// A limit was met, or the lake cannot be read.
    pub async fn promql_series(
        &self,
        organization: OrganizationId,
        select: LabelSelect,
        limits: PromqlLimits,
    ) -> EvalResult<(BTreeSet<Labels>, Vec<String>)> {
        let _turn = self.turn(organization, limits)?;
        let reader = self.reader(organization, limits).await?;
        let found = within(reader.deadline, limits.time, series(&reader, &select)).await?.map_err(failed)?;
        Ok((found, reader.stats.read().warnings))
    }

    /// What is known of metrics, by their names, or of `metric` alone.
    ///
    /// # Errors
    /// As [`Self::promql_series`].
    pub async fn promql_metadata(
        &self,
        organization: OrganizationId,
        metric: Option<String>,
        (start_ms, end_ms): (i64, i64),
        limits: PromqlLimits,
    ) -> EvalResult<BTreeMap<String, BTreeSet<MetricMetadata>>> {
        let _turn = self.turn(organization, limits)?;
        let reader = self.reader(organization, limits).await?;
        let reading = metadata(&reader, metric.as_deref(), time_range(start_ms, end_ms));
        within(reader.deadline, limits.time, reading).await?.map_err(failed)
    }
}

async fn series(reader: &Reader, select: &LabelSelect) -> Result<BTreeSet<Labels>> {
    let everything = [Vec::new()];
    let selectors = if select.selectors.is_empty() { &everything[..] } else { &select.selectors };
    let mut all = BTreeSet::new();
    let time = time_range(select.start_ms, select.end_ms);
    for matchers in selectors {
        let conditions = Conditions::new(matchers);
        let mut needs_points = BTreeSet::new();
        for meta in reader.segments(Tier::RAW, time) {
            let (_, series) = reader.open(&meta).await?;
            for found in series.find(&conditions) {
                let stored = &series.series[found.series as usize];
                for (role, name) in found.parts.iter() {
                    if matches!(role, Role::Bucket | Role::Quantile) {
                        needs_points.insert(name.to_string());
                        continue;
                    }
                    let mut labels = stored.labels.builder();
                    labels.set(METRIC_NAME, name);
                    all.insert(labels.build());
                }
                reader.check_series(all.len())?;
            }
            all.extend(series.find_infos(&conditions).into_iter().map(|(labels, _)| labels.clone()));
            reader.check_series(all.len())?;
        }
        // Only points tell which buckets and quantiles there are.
        for name in needs_points {
            let mut matchers = matchers.clone();
            matchers.push(Matcher::equal(METRIC_NAME, &name));
            let select = Select { matchers, start_ms: select.start_ms, end_ms: select.end_ms, windows: None };
            all.extend(reader.select(&select).await?.into_iter().map(|series| series.labels));
            reader.check_series(all.len())?;
        }
    }
    Ok(all)
}

async fn metadata(
    reader: &Reader,
    wanted: Option<&str>,
    time: TimeRange,
) -> Result<BTreeMap<String, BTreeSet<MetricMetadata>>> {
    let mut all: BTreeMap<String, BTreeSet<MetricMetadata>> = BTreeMap::new();
    let mut add = |name: &str, kind: &'static str, help: String, unit: String| {
        if wanted.is_none_or(|wanted| wanted == name) {
            all.entry(name.to_owned()).or_default().insert(MetricMetadata { kind, help, unit });
        }
    };
    for meta in reader.segments(Tier::RAW, time) {
        let (open, series) = reader.open(&meta).await?;
        let first_rows: Vec<(usize, u32)> = {
            let mut first: BTreeMap<u32, u32> = BTreeMap::new();
            for stored in &series.series {
                if let Some(rows) = stored.rows.first() {
                    let row = first.entry(stored.metric).or_insert(rows.start);
                    *row = (*row).min(rows.start);
                }
            }
            let is_wanted = |metric: &u32| {
                let family = &series.metrics[*metric as usize].family;
                wanted.is_none_or(|wanted| wanted == &**family)
            };
            first
                .into_iter()
                .filter(|(metric, _)| is_wanted(metric))
                .map(|(metric, row)| (metric as usize, row))
                .collect()
        };
        let helps = super::exemplars::texts_at(reader, &open, "description", &first_rows).await?;
        for ((metric, _), help) in first_rows.into_iter().zip(helps) {
            let metric = &series.metrics[metric];
            add(&metric.family, metric.type_name, help, metric.unit.to_string());
        }
        if series.resources.iter().any(|resource| resource.info.is_some()) {
            add(TARGET_INFO, "gauge", "Target metadata".to_owned(), String::new());
        }
    }
    // What one sender does not know another may.
    for told in all.values_mut().filter(|told| told.iter().any(|one| one.kind != "unknown")) {
        told.retain(|one| one.kind != "unknown");
    }
    Ok(all)
}
