//! Merging points, by (name, series, time), and spans, by (trace id, time): runs of sorted rows, merged.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType};
use tidemill_types::{Level, Signal};

use super::RUN_MEMORY_BYTES;
use super::attributes::MergePlan;
use super::output::Output;
use super::runs::{Run, RunSpiller, SortKey, batch_rows, merge_runs, sort_run};
use super::series::note_series;
use crate::draft::DraftSegment;
use crate::error::Result;
use crate::index::SeriesTableBuilder;
use crate::write::ROW_GROUP_ROWS;

/// Unsorted rows are sorted together up to this size.
const SORT_MEMORY_BYTES: usize = 24 << 20;
/// More runs than this are merged into one before the last merge.
const FAN_IN: usize = 16;

pub(crate) fn merge_sorted(plan: &MergePlan) -> Result<Vec<DraftSegment>> {
    let share = plan.rows().div_ceil(plan.outputs()).next_multiple_of(ROW_GROUP_ROWS as u64);
    let outputs = plan.rows().div_ceil(share).max(1) as u32;
    let mut drafts = Vec::new();
    let mut ordinal = 0;
    let mut output = Output::new(plan, ordinal, outputs);
    let is_metrics = plan.signal == Signal::Metrics;
    output.duplicate_rows = is_metrics.then_some(0);
    output.series = is_metrics.then(SeriesTableBuilder::default);
    let mut last: Option<SortKey> = None;
    each_sorted(plan, &mut |batch, keys| {
        if output.rows() >= share {
            ordinal += 1;
            let mut next = Output::new(plan, ordinal, outputs);
            next.duplicate_rows = is_metrics.then_some(0);
            next.series = is_metrics.then(SeriesTableBuilder::default);
            drafts.extend(std::mem::replace(&mut output, next).finish()?);
            last = None;
        }
        if let Some(duplicates) = &mut output.duplicate_rows {
            for key in keys {
                let is_same = |before: SortKey| (before.name, before.id, before.time) == (key.name, key.id, key.time);
                *duplicates += u64::from(last.is_some_and(is_same));
                last = Some(*key);
            }
        }
        if let Some(table) = &mut output.series {
            note_series(table, plan, &batch, keys)?;
        }
        output.write(&batch)
    })?;
    drafts.extend(output.finish()?);
    Ok(drafts)
}

/// Hands out all rows in order, with their keys.
pub(crate) fn each_sorted(plan: &MergePlan, emit: &mut dyn FnMut(RecordBatch, &[SortKey]) -> Result<()>) -> Result<()> {
    let ranks = if plan.signal == Signal::Metrics { name_ranks(plan)? } else { BTreeMap::new() };
    let signal = plan.signal;
    let keys_of = move |batch: &RecordBatch| sort_keys(signal, batch, &ranks);
    merge_runs(plan, collect_runs(plan, &keys_of)?, &keys_of, emit)
}

/// Segments of level 1 and above are runs as they are; rows of level 0 are sorted first.
fn collect_runs(plan: &MergePlan, keys_of: &dyn Fn(&RecordBatch) -> Vec<SortKey>) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut memory: Vec<Run> = Vec::new();
    let mut memory_bytes = 0;
    let mut unsorted: Vec<RecordBatch> = Vec::new();
    let mut unsorted_bytes = 0;
    for (number, input) in plan.inputs.iter().enumerate() {
        if input.footer.level > Level(0) {
            runs.push(Run::Segment {
                input: number,
                reader: input.read(plan.wanted_groups(number), batch_rows(plan))?,
            });
            continue;
        }
        for group in plan.wanted_groups(number) {
            let batch = plan.convert(number, &input.read_row_group(group)?)?;
            unsorted_bytes += batch.get_array_memory_size();
            unsorted.push(batch);
            if unsorted_bytes > SORT_MEMORY_BYTES {
                memory.push(sort_run(plan, &unsorted, keys_of)?);
                unsorted.clear();
                memory_bytes += std::mem::take(&mut unsorted_bytes);
            }
            if memory_bytes > RUN_MEMORY_BYTES {
                runs.push(spill(plan, std::mem::take(&mut memory), keys_of)?);
                memory_bytes = 0;
            }
        }
    }
    if !unsorted.is_empty() {
        memory.push(sort_run(plan, &unsorted, keys_of)?);
    }
    runs.extend(memory);
    while runs.len() > FAN_IN {
        let rest = runs.split_off(FAN_IN);
        let merged = spill(plan, runs, keys_of)?;
        runs = rest;
        runs.push(merged);
    }
    Ok(runs)
}

fn spill(plan: &MergePlan, runs: Vec<Run>, keys_of: &dyn Fn(&RecordBatch) -> Vec<SortKey>) -> Result<Run> {
    let mut spiller = RunSpiller::create(&plan.options.spool, plan)?;
    merge_runs(plan, runs, keys_of, &mut |batch, _| spiller.write(&batch))?;
    spiller.finish()
}

/// Every metric name with its place in the alphabet.
fn name_ranks(plan: &MergePlan) -> Result<BTreeMap<String, u32>> {
    let mut names = BTreeSet::new();
    for (number, input) in plan.inputs.iter().enumerate() {
        for group in plan.wanted_groups(number) {
            let batch = input.read_column("name", group)?;
            each_name(&batch, &mut |_, name| {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            });
        }
    }
    Ok(names.into_iter().zip(0..).collect())
}

/// Visits (row, name); of dictionaries, each entry with row 0 suffices for [`name_ranks`], so rows are told only for plain text.
fn each_name(batch: &RecordBatch, visit: &mut dyn FnMut(usize, &str)) {
    let Some(column) = batch.column_by_name("name") else { return };
    match column.data_type() {
        DataType::Dictionary(..) => {
            let values = column.as_dictionary::<Int32Type>().values().as_string::<i32>();
            values.iter().flatten().for_each(|name| visit(0, name));
        }
        _ => {
            let texts = column.as_string::<i32>();
            (0..texts.len()).filter(|row| texts.is_valid(*row)).for_each(|row| visit(row, texts.value(row)));
        }
    }
}

fn sort_keys(signal: Signal, batch: &RecordBatch, ranks: &BTreeMap<String, u32>) -> Vec<SortKey> {
    let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
    let arrivals = batch.column(1).as_primitive::<TimestampNanosecondType>();
    let id = if signal == Signal::Metrics { "series" } else { "trace_id" };
    let ids = batch.column_by_name(id).expect("the core columns have it").as_fixed_size_binary();
    let names = if signal == Signal::Metrics { Some(metric_ranks(batch, ranks)) } else { None };
    (0..batch.num_rows())
        .map(|row| {
            let is_valid = ids.is_valid(row);
            let id = if is_valid { ids.value(row).try_into().expect("ids have 16 bytes") } else { [0; 16] };
            let name = names.as_ref().map_or(u32::from(is_valid), |names| names[row]);
            SortKey { name, id, time: times.value(row), arrival: arrivals.value(row) }
        })
        .collect()
}

fn metric_ranks(batch: &RecordBatch, ranks: &BTreeMap<String, u32>) -> Vec<u32> {
    let column = batch.column_by_name("name").expect("the core columns have it");
    let rank = |name: &str| ranks.get(name).copied().unwrap_or(u32::MAX);
    match column.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = column.as_dictionary::<Int32Type>();
            let values: Vec<u32> =
                dictionary.values().as_string::<i32>().iter().map(|name| name.map_or(0, rank)).collect();
            dictionary.keys().values().iter().map(|key| values.get(*key as usize).copied().unwrap_or(0)).collect()
        }
        _ => column.as_string::<i32>().iter().map(|name| name.map_or(0, rank)).collect(),
    }
}
