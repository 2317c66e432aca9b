//! The trace ids of a segment, read from its footer and one column alone, against all of its rows.

use bytes::Bytes;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::tempdir;

use crate::support::requests::Maker;
use crate::support::stored::{draft_bytes, store};
use crate::support::{encode, file_rows};
use tidemill_segment::merge::{MergeInput, MergeOptions, merge_segments};
use tidemill_segment::read::TraceColumn;
use tidemill_types::{ByteRange, ErrorKind, Level, SegmentMeta, Signal};

fn part(object: &Bytes, range: ByteRange) -> Bytes {
    object.slice(range.offset as usize..(range.offset + range.len) as usize)
}

/// The same ids as in the rows, in their order, none twice in a row and none for rows without one.
fn check(meta: &SegmentMeta, object: &Bytes) -> usize {
    let column = TraceColumn::decode(meta, &part(object, meta.footer)).expect("is a segment");
    let groups = column.ranges().into_iter().enumerate();
    let mut ids: Vec<String> = groups
        .flat_map(|(group, range)| column.trace_ids(group, part(object, range)).expect("are trace ids"))
        .map(hex::encode)
        .collect();
    let mut expected: Vec<String> =
        file_rows(object.clone()).iter().filter_map(|row| row["trace_id"].as_str().map(str::to_owned)).collect();
    ids.dedup();
    expected.dedup();
    assert_eq!(ids, expected);
    ids.len()
}

#[test]
fn the_column_alone_tells_every_trace() {
    let folder = tempdir().expect("a folder");
    let mut random = StdRng::seed_from_u64(11);
    let mut inputs: Vec<MergeInput> = Vec::new();
    for work in 0..8 {
        let body = Maker(&mut random).traces().encode_to_vec();
        for draft in encode(Signal::Traces, "traces", &body).1 {
            inputs.push(store(folder.path(), &draft, work * 100 + inputs.len() as i64));
        }
    }
    let day = inputs[0].meta.day;
    inputs.retain(|input| input.meta.day == day);
    let mut traces = 0;
    for input in &inputs {
        traces += check(&input.meta, &std::fs::read(&input.file).expect("is read").into());
    }
    assert!(traces > 10, "{traces}");
    let options =
        MergeOptions { level: Level(1), promote: Vec::new(), spool: folder.path().to_owned(), target_bytes: 64 << 20 };
    for draft in merge_segments(inputs, options).expect("merges") {
        let object = draft_bytes(&draft);
        let meta = store(folder.path(), &draft, 10_000).meta;
        assert!(check(&meta, &object) > 1);
        assert!(draft.rows > 0);
    }
}

#[test]
fn damage_is_seen() {
    let folder = tempdir().expect("a folder");
    let body = Maker(&mut StdRng::seed_from_u64(12)).traces().encode_to_vec();
    let draft = encode(Signal::Traces, "traces", &body).1.remove(0);
    let (meta, object) = (store(folder.path(), &draft, 1).meta, draft_bytes(&draft));
    let footer = part(&object, meta.footer);
    let mut damaged = footer.to_vec();
    damaged[5] ^= 1;
    assert_eq!(TraceColumn::decode(&meta, &damaged).expect_err("is not it").kind(), ErrorKind::Corrupt);
    let column = TraceColumn::decode(&meta, &footer).expect("is a segment");
    let range = column.ranges()[0];
    let short = ByteRange { len: range.len - 1, ..range };
    assert!(column.trace_ids(0, part(&object, short)).is_err(), "a part of it is not read as all of it");
}
