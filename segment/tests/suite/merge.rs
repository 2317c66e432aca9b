//! Merging real and made segments: no row is lost or changed, outputs are sorted and indexed, and the index prunes.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::support::requests::Maker;
use crate::support::stored::{draft_bytes, store};
use crate::support::{ARRIVAL, encode, file_rows, sorted_rows};
use tidemill_segment::DraftSegment;
use tidemill_segment::index::{Condition, SeriesTable, TokenIndex};
use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription};
use tidemill_segment::merge::{MergeInput, MergeOptions, merge_segments};
use tidemill_segment::read::{AttributeScope, SegmentFooter};
use tidemill_types::{Level, Signal};

fn samples() -> PathBuf {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    std::env::var_os("TIDEMILL_SHARED").map_or_else(beside, PathBuf::from).join("samples/nezha-otlp")
}

fn merge(folder: &Path, inputs: Vec<MergeInput>, level: u8, target_bytes: u64) -> Vec<DraftSegment> {
    let options = MergeOptions {
        level: Level(level),
        promote: vec!["http.method".to_owned()],
        spool: folder.to_owned(),
        target_bytes,
    };
    merge_segments(inputs, options).expect("merges")
}

/// Groups drafts by day and merges each day.
fn merge_days(folder: &Path, drafts: &[DraftSegment], level: u8, target_bytes: u64) -> Vec<DraftSegment> {
    let mut days: Vec<i32> = drafts.iter().map(|draft| draft.day.0).collect();
    days.sort_unstable();
    days.dedup();
    let mut merged = Vec::new();
    for day in days {
        let of_day = drafts.iter().enumerate().filter(|(_, draft)| draft.day.0 == day);
        let inputs =
            of_day.map(|(work, draft)| store(folder, draft, i64::from(level) * 100_000 + work as i64)).collect();
        merged.extend(merge(folder, inputs, level, target_bytes));
    }
    merged
}

/// Encodes the sample files of a signal, `files` of them to a bundle.
fn nezha(folder: &Path, signal: Signal, files: usize, most: usize) -> Vec<DraftSegment> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(samples())
        .expect("the shared samples are there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(signal.as_str())));
    names.sort();
    names.truncate(most);
    let mut drafts = Vec::new();
    for bundle in names.chunks(files) {
        let options = IngestOptions { signal, promote: Vec::new(), spool: folder.to_owned(), memory_bytes: 64 << 20 };
        let mut encoder = BundleEncoder::new(options).expect("sane options");
        for path in bundle {
            let input = InputDescription { label: path.display().to_string(), format: None, arrival: ARRIVAL };
            encoder.read_input(&input, &mut File::open(path).expect("opens")).expect("reads");
        }
        drafts.extend(encoder.finish().expect("writes"));
    }
    drafts
}

fn footer_of(bytes: &Bytes) -> SegmentFooter {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("a Parquet file");
    SegmentFooter::from_metadata(builder.metadata()).expect("a segment")
}

fn total(drafts: &[DraftSegment]) -> (u64, u64) {
    (drafts.iter().map(|draft| draft.rows).sum(), drafts.iter().map(|draft| draft.bytes).sum())
}

#[test]
fn made_rows_survive_two_merges() {
    for signal in Signal::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let mut drafts = Vec::new();
        for seed in 0..25 {
            let mut random = StdRng::seed_from_u64(seed);
            let body = match signal {
                Signal::Logs => Maker(&mut random).logs().encode_to_vec(),
                Signal::Metrics => Maker(&mut random).metrics().encode_to_vec(),
                Signal::Traces => Maker(&mut random).traces().encode_to_vec(),
            };
            drafts.extend(encode(signal, signal.as_str(), &body).1);
        }
        let mut before = sorted_rows(&drafts);
        before.iter_mut().for_each(name_odd_service);
        before.sort_by_cached_key(Value::to_string);
        let (left, right) = drafts.split_at(drafts.len() / 2);
        let mut level_1 = merge_days(folder.path(), left, 1, 64 << 20);
        level_1.extend(merge_days(folder.path(), right, 1, 64 << 20));
        assert_rows(&before, &sorted_rows(&level_1), signal);
        let level_2 = merge_days(folder.path(), &level_1, 2, 64 << 20);
        assert_rows(&before, &sorted_rows(&level_2), signal);
    }
}

/// Level 0 keeps a `service.name` that is no text in a column that no footer names; merges move it to the overflow column.
fn name_odd_service(row: &mut Value) {
    if let Some(odd) = row.as_object_mut().and_then(|row| row.remove("r_service_name")) {
        row["resource"]["service.name"] = odd;
    }
}

fn assert_rows(before: &[Value], after: &[Value], signal: Signal) {
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before, after, "{signal}");
    }
    assert_eq!(before.len(), after.len(), "{signal}");
}

#[test]
fn real_logs_merge_small_and_prune() {
    let folder = tempfile::tempdir().expect("a folder");
    let drafts = nezha(folder.path(), Signal::Logs, 6, 12);
    let before = sorted_rows(&drafts);
    let merged = merge_days(folder.path(), &drafts, 1, 64 << 20);
    let after = sorted_rows(&merged);
    assert_rows(&before, &after, Signal::Logs);
    let largest = merged.iter().max_by_key(|draft| draft.rows).expect("there is one");
    let bytes = draft_bytes(largest);
    let footer = footer_of(&bytes);
    assert_eq!(footer.index, largest.index);
    assert!(footer.replaces.len() > 1 && footer.outputs == 1);
    let index = bytes.slice(footer.index.offset as usize..(footer.index.offset + footer.index.len) as usize);
    let index = TokenIndex::open(index).expect("an index");
    assert_eq!(index.directory().rows(), largest.rows);
    let rows = file_rows(bytes.clone());
    let mut traces: HashMap<&str, usize> = HashMap::new();
    rows.iter().filter_map(|row| row["trace_id"].as_str()).for_each(|trace| *traces.entry(trace).or_default() += 1);
    let trace =
        traces.iter().min_by_key(|(trace, count)| (**count, **trace)).expect("logs with trace ids").0.to_string();
    let id = Condition::Equals { column: "trace_id".to_owned(), value: hex::decode(&trace).expect("hex") };
    let selected = index.select(&id).expect("selects").expect("trace ids are indexed");
    assert!(selected.rows() < largest.rows, "{} of {}", selected.rows(), largest.rows);
    for (number, row) in rows.iter().enumerate() {
        assert!(row["trace_id"] != trace.as_str() || selected.contains(number as u64));
    }
    let body = rows[rows.len() / 3]["body"].as_str().expect("a body");
    let literal: String = body.chars().skip(3).take(24).collect();
    let condition = Condition::Substring { column: "body".to_owned(), literal: literal.clone() };
    if let Some(selected) = index.select(&condition).expect("selects") {
        for (number, row) in rows.iter().enumerate() {
            let matches = row["body"].as_str().is_some_and(|body| body.contains(&literal));
            assert!(!matches || selected.contains(number as u64), "{literal:?} in row {number}");
        }
    }
    let selection = RowSelection::from_consecutive_ranges(
        selected.ranges.iter().map(|range| range.start as usize..range.end as usize),
        rows.len(),
    );
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a file").with_row_selection(selection).build();
    let read: usize = reader.expect("reads").map(|batch| batch.expect("rows").num_rows()).sum();
    assert_eq!(read as u64, selected.rows());
}

#[test]
fn outputs_are_split_at_the_target_and_know_each_other() {
    for signal in [Signal::Logs, Signal::Traces] {
        let folder = tempfile::tempdir().expect("a folder");
        let drafts = nezha(folder.path(), signal, 20, 40);
        let (rows, bytes) = total(&drafts);
        let merged = merge_days(folder.path(), &drafts, 1, bytes / 4);
        assert!(merged.len() > 1, "{signal}: {}", merged.len());
        assert_eq!(total(&merged).0, rows);
        for (ordinal, draft) in merged.iter().enumerate() {
            let footer = footer_of(&draft_bytes(draft));
            assert_eq!((footer.ordinal as usize, footer.outputs as usize), (ordinal, merged.len()), "{signal}");
            assert_eq!((footer.rows, footer.time), (draft.rows, draft.time));
        }
        if signal == Signal::Logs {
            assert!(merged.windows(2).all(|pair| pair[0].time.end <= pair[1].time.start), "outputs are ranges of time");
        }
    }
}

#[test]
fn the_series_table_knows_every_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let body = Maker(&mut StdRng::seed_from_u64(3)).metrics().encode_to_vec();
    let merged = merge_days(folder.path(), &encode(Signal::Metrics, "metrics", &body).1, 1, 64 << 20);
    for draft in &merged {
        let bytes = draft_bytes(draft);
        let footer = footer_of(&bytes);
        let part = footer.sections.iter().find(|part| part.name == "series").expect("metrics have one");
        let range = part.range.offset as usize..(part.range.offset + part.range.len) as usize;
        let table = SeriesTable::decode(&bytes[range]).expect("reads");
        let rows = file_rows(bytes);
        assert_eq!(table.series().last().map(|series| series.rows.end), Some(draft.rows));
        for (place, series) in table.series().iter().enumerate() {
            for row in &rows[series.rows.start as usize..series.rows.end as usize] {
                assert_eq!(row["series"], hex::encode(series.id));
                assert_eq!(row["name"], table.frames()[series.frame as usize].name.as_str());
            }
            let labels = rows[series.rows.start as usize]["resource"].as_object().expect("an object");
            for (key, value) in labels.iter().filter(|(_, value)| value.is_string() || value.is_boolean()) {
                let with = table.with_label(AttributeScope::Resource, key, &value.to_string());
                assert!(with.contains(&(place as u32)), "{key} {value}");
            }
        }
    }
}

/// Sizes of the whole sample day, for `docs/bench`; run by hand with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn sizes_of_the_sample_day() {
    for (signal, files) in [(Signal::Logs, 10), (Signal::Traces, 10), (Signal::Metrics, 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let drafts = nezha(folder.path(), signal, files, usize::MAX);
        let (rows, level_0) = total(&drafts);
        let merged = merge_days(folder.path(), &drafts, 2, 256 << 20);
        let (merged_rows, level_2) = total(&merged);
        assert_eq!(rows, merged_rows);
        let index: u64 = merged.iter().map(|draft| draft.index.len).sum();
        let footer: u64 = merged.iter().map(|draft| draft.footer.len).sum();
        eprintln!(
            "{signal}: {rows} rows, level 0 {level_0} bytes, level 2 {level_2}, of these index {index} and footer {footer}"
        );
        if let Some(keep) = std::env::var_os("TIDEMILL_KEEP_SEGMENTS") {
            for (number, draft) in merged.iter().enumerate() {
                let path = PathBuf::from(&keep).join(format!("{signal}-{number}.parquet"));
                std::fs::write(path, draft_bytes(draft)).expect("writes");
            }
        }
    }
}
