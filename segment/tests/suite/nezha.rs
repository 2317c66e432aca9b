//! The whole Nezha day loads: every record, of every signal, and nothing is refused.

use std::fs::File;
use std::path::PathBuf;

use tidemill_segment::DraftSegment;
use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription};
use tidemill_types::{Signal, TimestampNs};

use crate::support::samples;

fn load(signal: Signal) -> (u64, Vec<DraftSegment>) {
    let spool = tempfile::tempdir().expect("a folder");
    let options =
        IngestOptions { signal, promote: Vec::new(), spool: spool.path().to_owned(), memory_bytes: 256 << 20 };
    let mut encoder = BundleEncoder::new(options).expect("sane options");
    let mut accepted = 0;
    let mut names: Vec<PathBuf> = std::fs::read_dir(samples("nezha-otlp"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    for path in names {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with(signal.as_str()) {
            continue;
        }
        let input = InputDescription { label: name, format: None, arrival: TimestampNs(1_700_000_000_000_000_000) };
        let mut file = File::open(&path).expect("a readable sample");
        let report = encoder.read_input(&input, &mut file).expect("files can be read");
        assert_eq!((report.rejected, &report.issues, &report.failure), (0, &Vec::new(), &None), "{}", input.label);
        accepted += report.accepted;
    }
    (accepted, encoder.finish().expect("segments can be written"))
}

fn assert_loads(signal: Signal, records: u64) {
    let (accepted, drafts) = load(signal);
    assert_eq!(accepted, records);
    assert_eq!(drafts.iter().map(|draft| draft.rows).sum::<u64>(), records);
    for draft in &drafts {
        assert!(draft.day.range().covers(draft.time), "a segment stays in its day");
        assert!(draft.bytes > 0 && draft.footer.len > 0);
    }
}

#[test]
fn all_logs_load() {
    assert_loads(Signal::Logs, 94_703);
}

#[test]
fn all_spans_load() {
    assert_loads(Signal::Traces, 179_170);
}

#[test]
fn all_points_load() {
    assert_loads(Signal::Metrics, 651_339);
}
