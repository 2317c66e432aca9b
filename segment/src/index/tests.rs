//! The index as a whole: what it answers is always a superset, and prunes where it can.

use bytes::Bytes;
use proptest::prelude::*;

use super::{Condition, EncodedIndex, IndexBuilder, IndexDirectory, IndexMode, IndexedColumn, RowBlocks, TokenIndex};

fn columns() -> Vec<IndexedColumn> {
    vec![
        IndexedColumn { name: "body".to_owned(), mode: IndexMode::Tokens },
        IndexedColumn { name: "service_name".to_owned(), mode: IndexMode::Values },
    ]
}

/// Blocks of `block_rows` rows of (body, service).
fn build(rows: &[(String, String)], block_rows: usize, memory_limit_bytes: usize) -> Bytes {
    let mut builder = IndexBuilder::new(columns()).with_memory_limit(memory_limit_bytes);
    for block in rows.chunks(block_rows) {
        builder.start_block(block.len() as u64).expect("starts");
        for (body, service) in block {
            builder.add_text(0, body);
            builder.add_value(1, service.as_bytes());
        }
    }
    join(&builder.finish().expect("encodes"))
}

fn join(index: &EncodedIndex) -> Bytes {
    [index.directory.as_slice(), index.sections.as_slice()].concat().into()
}

/// Asks by the whole index and by ranges, which must agree.
fn ask(bytes: &Bytes, condition: &Condition) -> Option<RowBlocks> {
    let whole = TokenIndex::open(bytes.clone()).expect("opens").select(condition).expect("selects");
    let directory = IndexDirectory::decode(bytes).expect("decodes");
    let fetched: Vec<_> = directory
        .needed(condition)
        .into_iter()
        .map(|range| (range, bytes.slice(range.offset as usize..(range.offset + range.len) as usize)))
        .collect();
    assert_eq!(directory.select(condition, fetched.as_slice()).expect("selects"), whole);
    whole
}

fn substring(literal: &str) -> Condition {
    Condition::Substring { column: "body".to_owned(), literal: literal.to_owned() }
}

fn equals(value: &str) -> Condition {
    Condition::Equals { column: "service_name".to_owned(), value: value.as_bytes().to_vec() }
}

/// Bodies with words, numbers, hexadecimal ids, mixed ids and overlong runs.
fn body() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => "(error|timeout|conn|user|GET|order5)",
        2 => "[0-9]{1,13}",
        2 => "[0-9a-f]{16}",
        2 => "[0-9a-f]{32}",
        2 => "[A-Za-z0-9]{5,20}",
        1 => "[a-z0-9]{60,80}",
        1 => "é",
    ];
    proptest::collection::vec((word, "[ =:/-]"), 0..6)
        .prop_map(|parts| parts.into_iter().map(|(word, separator)| word + &separator).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_answer_is_a_superset(
        bodies in proptest::collection::vec(body(), 1..60),
        row in any::<proptest::sample::Index>(),
        start in any::<proptest::sample::Index>(),
        length in 1_usize..70,
        memory_limit_bytes in prop_oneof![Just(1_usize), Just(1 << 20)],
    ) {
        let rows: Vec<(String, String)> =
            bodies.into_iter().enumerate().map(|(n, body)| (body, format!("service-{}", n % 13))).collect();
        let bytes = build(&rows, 3, memory_limit_bytes);
        let text: Vec<char> = rows[row.index(rows.len())].0.chars().collect();
        if !text.is_empty() {
            let start = start.index(text.len());
            let literal: String = text[start..(start + length).min(text.len())].iter().collect();
            let answer = ask(&bytes, &substring(&literal));
            for (number, (body, _)) in rows.iter().enumerate() {
                if body.contains(&literal) {
                    prop_assert!(answer.as_ref().is_none_or(|rows| rows.contains(number as u64)), "{literal:?} in {body:?}");
                }
            }
        }
        let answer = ask(&bytes, &equals("service-4")).expect("values are indexed");
        for number in (0..rows.len()).filter(|number| number % 13 == 4) {
            prop_assert!(answer.contains(number as u64));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = TokenIndex::open(bytes.into());
    }

    #[test]
    fn damage_is_noticed(place in any::<proptest::sample::Index>(), bit in 0_u32..8) {
        let rows: Vec<(String, String)> = (0..30).map(|n| (format!("user {n} id{n}7x9"), "s".to_owned())).collect();
        let mut bytes = build(&rows, 3, 1 << 20).to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        // A damaged page that no key asks for is not read; what is read is right or refused.
        let Ok(index) = TokenIndex::open(bytes.into()) else { return Ok(()) };
        if let Ok(Some(answer)) = index.select(&substring(" id77x9")) {
            prop_assert!(answer.contains(7));
        }
    }
}

fn sample_rows() -> Vec<(String, String)> {
    let id = |n: u64| {
        format!("{:016x}{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n.wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
    };
    (0..20_000)
        .map(|n| {
            (
                format!("order {} of user{} took {} ms trace {}", n, n % 100, n % 500, id(n / 10)),
                format!("service-{}", n / 5_000),
            )
        })
        .collect()
}

fn share(bytes: &Bytes, condition: &Condition) -> f64 {
    ask(bytes, condition).map_or(1.0, |rows| rows.rows() as f64 / 20_000.0)
}

#[test]
fn needles_prune() {
    let rows = sample_rows();
    let bytes = build(&rows, 100, 64 << 20);
    let id = rows[12_345].0.rsplit(' ').next().expect("has an id").to_owned();
    assert!(share(&bytes, &substring(&id)) <= 0.02);
    assert!(share(&bytes, &substring(&format!("trace {id}"))) <= 0.02);
    assert!(share(&bytes, &substring(&id[7..27])) <= 0.03, "{}", share(&bytes, &substring(&id[7..27])));
    assert!(share(&bytes, &substring("ffffffffffffffffffff")) <= 0.02);
    assert!(share(&bytes, &substring(" 12345 ")) <= 0.02);
    assert_eq!(share(&bytes, &substring("timeout")), 0.0);
    assert_eq!(share(&bytes, &substring(" ord ")), 0.0);
    assert_eq!(share(&bytes, &substring("took")), 1.0);
    assert_eq!(share(&bytes, &equals("service-2")), 0.25);
    assert!(share(&bytes, &equals("service-9")) <= 0.02);
    assert_eq!(ask(&bytes, &substring(" -- ")), None);
    assert_eq!(ask(&bytes, &Condition::Equals { column: "other".to_owned(), value: Vec::new() }), None);
    let both = Condition::All(vec![substring("took"), equals("service-1"), substring(" -- ")]);
    assert_eq!(share(&bytes, &both), 0.25);
    assert_eq!(ask(&bytes, &Condition::Any(vec![equals("service-1"), substring("-")])), None);
    let tokens = Condition::AllTokens {
        column: "body".to_owned(),
        tokens: vec!["order".to_owned(), "user7".to_owned(), "7".to_owned()],
    };
    assert!(share(&bytes, &tokens) <= 0.5);
}

#[test]
fn a_needle_reads_little_of_the_index() {
    let bytes = build(&sample_rows(), 100, 64 << 20);
    let directory = IndexDirectory::decode(&bytes).expect("decodes");
    let read: u64 = directory.needed(&equals("service-2")).iter().map(|range| range.len).sum();
    assert!(read * 2 < bytes.len() as u64, "{read} of {}", bytes.len());
}

#[test]
fn an_empty_index_selects_nothing() {
    let bytes = join(&IndexBuilder::new(columns()).finish().expect("encodes"));
    assert_eq!(ask(&bytes, &substring("x")), Some(RowBlocks::default()));
}

/// The bytes of version 1 as they were first written; later builds must read them.
#[test]
fn version_1_is_still_read() {
    let bytes = Bytes::from_static(include_bytes!("../../tests/samples/index-v1.bin"));
    let rows: Vec<(String, String)> = sample_rows().into_iter().take(300).collect();
    assert_eq!(
        ask(&bytes, &substring("order 217 ")).expect("prunes").ranges.as_slice(),
        std::slice::from_ref(&(200..300))
    );
    assert_eq!(ask(&bytes, &equals("service-0")).expect("prunes").ranges.as_slice(), std::slice::from_ref(&(0..300)));
    assert_eq!(build(&rows, 100, 64 << 20), bytes, "the same rows still give the same bytes");
}
