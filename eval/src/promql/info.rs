//! `info`: labels of info series (`target_info`) added to the series of the same `instance` and `job`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidemill_lang::promql::{Call, Expr, ExprKind};

use super::binary::RowSet;
use super::evaluator::Evaluator;
use super::grid::Grid;
use super::prepare::Shift;
use super::row::Row;
use super::selection::{Current, current, matchers};
use super::source::Series;
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::Matcher;

/// The labels by which series and info series find each other.
const IDENTIFYING: [&str; 2] = ["instance", "job"];
/// The info series that are looked up where no name is given.
const TARGET_INFO: &str = "target_info";

impl Evaluator<'_> {
    pub(super) fn info(&mut self, call: &Call, grid: Grid) -> Result<Vec<Row>> {
        let base = self.eval(&call.args[0], grid)?;
        let asked = match call.args.get(1).map(|arg| &arg.bare().kind) {
            Some(ExprKind::Vector(selector)) => matchers(selector)?,
            _ => Vec::new(),
        };
        let (names, data): (Vec<Matcher>, Vec<Matcher>) =
            asked.into_iter().partition(|matcher| matcher.name == METRIC_NAME);
        // Info series are not enriched themselves; with conditions but no name, none is known as one.
        let knows_names = !names.is_empty() || call.args.len() == 1;
        let names = if names.is_empty() { vec![Matcher::equal(METRIC_NAME, TARGET_INFO)] } else { names };
        let is_info = |row: &Row| knows_names && Matcher::all_meet(&names, &row.labels);
        let shift = first_shift(&call.args[0], self)?;
        let infos = self.info_series(base.iter().filter(|row| !is_info(row)), &names, &data, shift.span(grid))?;
        let by_signature = signatures(&infos);
        let mut set = RowSet::new(grid.len());
        for row in &base {
            if is_info(row) {
                for step in (0..row.steps()).filter(|step| row.has(*step)) {
                    set.put(&row.labels, row.drops_name, step, row.cell(step))?;
                }
                continue;
            }
            let candidates: Vec<&BTreeMap<&str, Vec<&Series>>> =
                by_signature.get(&identity(&row.labels)).into_iter().collect();
            for (step, time) in grid.times().enumerate().filter(|(step, _)| row.has(*step)) {
                let mut found = Vec::new();
                for series in candidates.iter().flat_map(|names| names.values()) {
                    found.extend(newest(series, shift.seen(time), self.options.lookback_ms)?);
                }
                if let Some(labels) = enriched(&row.labels, &found, &data)? {
                    set.put(&labels, row.drops_name, step, row.cell(step))?;
                }
            }
        }
        Ok(set.into_rows().into_iter().filter(Row::has_any).collect())
    }

    /// The info series of the identities that occur.
    fn info_series<'r>(
        &mut self,
        base: impl Iterator<Item = &'r Row>,
        names: &[Matcher],
        data: &[Matcher],
        times: (i64, i64),
    ) -> Result<Vec<Series>> {
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for row in base {
            for name in IDENTIFYING {
                let value = row.labels.get(name);
                if !value.is_empty() {
                    values.entry(name).or_default().insert(value);
                }
            }
        }
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let mut conditions: Vec<Matcher> = names.iter().chain(data).cloned().collect();
        for (name, values) in values {
            let alternatives: Vec<String> = values.into_iter().map(regex::escape).collect();
            conditions.push(Matcher::pattern(name, alternatives.join("|"), false)?);
        }
        let lookback = self.options.lookback_ms;
        self.select(conditions, times, (lookback, 0))
    }
}

/// The time shift of the first selector in an expression, which info series follow.
fn first_shift(expr: &Expr, evaluator: &Evaluator<'_>) -> Result<Shift> {
    fn first(expr: &Expr) -> Option<&tidemill_lang::promql::When> {
        match &expr.kind {
            ExprKind::Vector(selector) => Some(&selector.when),
            ExprKind::Matrix(matrix) => Some(&matrix.selector.when),
            _ => expr.children().into_iter().find_map(first),
        }
    }
    evaluator.times.shift(&first(expr).cloned().unwrap_or_default())
}

fn identity(labels: &Labels) -> Labels {
    labels.filtered(|name| IDENTIFYING.contains(&name))
}

/// Info series by identity, then by the metric's name.
fn signatures(infos: &[Series]) -> HashMap<Labels, BTreeMap<&str, Vec<&Series>>> {
    let mut by_signature: HashMap<Labels, BTreeMap<&str, Vec<&Series>>> = HashMap::new();
    for series in infos {
        let names = by_signature.entry(identity(&series.labels)).or_default();
        names.entry(series.labels.get(METRIC_NAME)).or_default().push(series);
    }
    by_signature
}

/// The series with the newest current sample.
fn newest<'s>(series: &[&'s Series], time: i64, lookback: i64) -> Result<Option<&'s Series>> {
    let mut best: Option<(i64, &Series)> = None;
    for series in series {
        let at = match current(&series.samples, &mut Walk::default(), time, lookback) {
            Some(Current::Float(at, _)) => at,
            Some(Current::Histogram(..)) => {
                return Err(Error::Data(format!(
                    "this should be an info metric, with float samples: {}",
                    series.labels
                )));
            }
            None => continue,
        };
        match best {
            Some((known, existing)) if known == at => {
                return Err(Error::Data(format!(
                    "found duplicate series for info metric: existing {} @ {known}, new {} @ {at}",
                    super::binary::braced(&existing.labels),
                    super::binary::braced(&series.labels)
                )));
            }
            Some((known, _)) if known > at => {}
            _ => best = Some((at, series)),
        }
    }
    Ok(best.map(|(_, series)| series))
}

/// The labels of a series with those of its info series; none where a condition asks for a label that no info series has.
fn enriched(base: &Labels, found: &[&Series], data: &[Matcher]) -> Result<Option<Labels>> {
    let is_asked = |name: &str| data.is_empty() || data.iter().any(|matcher| matcher.name == name);
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for label in found.iter().flat_map(|series| series.labels.iter()) {
        let name: &str = &label.name;
        if name == METRIC_NAME || !is_asked(name) {
            continue;
        }
        if added.get(name).is_some_and(|value| *value != &*label.value) {
            return Err(Error::Data(format!("conflicting label: {name}")));
        }
        if !base.has(name) {
            added.insert(name, &label.value);
        }
    }
    if found.is_empty() && data.iter().any(|matcher| !matcher.meets("")) {
        return Ok(None);
    }
    let mut builder = base.builder();
    for (name, value) in added {
        builder.set(name, value);
    }
    Ok(Some(builder.build()))
}
