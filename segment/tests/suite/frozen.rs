//! The format is frozen: segments written by the first build of each version are read as they were meant, and the same inputs still
//! become the same rows, series ids included.
//!
//! `TIDEMILL_REWRITE=1` writes the files of a new version; those of a released version never change.

use std::path::PathBuf;

use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tidemill_segment::DraftBody;
use tidemill_types::Signal;

use crate::support::requests::Maker;
use crate::support::{encode, file_rows, sorted_rows};

fn path(signal: Signal, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/samples/v1/{}.{extension}", signal.table()))
}

fn load(signal: Signal, extension: &str) -> Vec<u8> {
    let path = path(signal, extension);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Some requests of every shape, one after the other.
fn made_input(signal: Signal) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(2023);
    let mut maker = Maker(&mut random);
    (0..6)
        .flat_map(|_| match signal {
            Signal::Logs => maker.logs().encode_to_vec(),
            Signal::Metrics => maker.metrics().encode_to_vec(),
            Signal::Traces => maker.traces().encode_to_vec(),
        })
        .collect()
}

fn rewrite(signal: Signal) {
    let input = made_input(signal);
    let (_, drafts) = encode(signal, "input", &input);
    // The day with the most rows; the others are checked through the rows of the input.
    let draft = drafts.iter().max_by_key(|draft| draft.rows).expect("there are rows");
    let DraftBody::Memory(body) = &draft.body else { panic!("small segments stay in memory") };
    std::fs::create_dir_all(path(signal, "parquet").parent().expect("a folder")).expect("a writable folder");
    for (extension, bytes) in [
        ("binpb", input.as_slice()),
        ("parquet", body),
        ("parquet.jsonl", lines(&file_rows(body.clone())).as_bytes()),
        ("binpb.jsonl", lines(&sorted_rows(&drafts)).as_bytes()),
    ] {
        std::fs::write(path(signal, extension), bytes).expect("a writable folder");
    }
}

#[test]
fn samples_of_version_1_read_as_they_were_written() {
    for signal in Signal::ALL {
        if std::env::var_os("TIDEMILL_REWRITE").is_some() {
            rewrite(signal);
        }
        let rows = file_rows(load(signal, "parquet").into());
        assert!(rows.len() >= 10, "{signal}: a sample of {} rows shows little", rows.len());
        assert_eq!(lines(&rows), String::from_utf8(load(signal, "parquet.jsonl")).expect("text"), "{signal}");
    }
}

#[test]
fn committed_inputs_become_the_same_rows() {
    for signal in Signal::ALL {
        let (_, drafts) = encode(signal, "input", &load(signal, "binpb"));
        assert_eq!(
            lines(&sorted_rows(&drafts)),
            String::from_utf8(load(signal, "binpb.jsonl")).expect("text"),
            "{signal}"
        );
    }
}
