//! Every accepted shape of notification, and how the others are refused.
//!
//! Each `notifications/<case>.json`, with the headers of `<case>.headers` where there are any, gives exactly `<case>.expected`;
//! `TIDEMILL_REWRITE=1` rewrites them. The same cases seed a mutator: no body makes the parser panic, or read more than is there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use tidemill_lake::notify::{Content, MAX_BODY_BYTES, MAX_EVENTS, Malformed, Notification, parse};

struct Case {
    name: String,
    path: PathBuf,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notifications");
    let entries = fs::read_dir(folder).expect("the folder of cases");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: PathBuf| Case {
        name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
        headers: headers(&fs::read_to_string(path.with_extension("headers")).unwrap_or_default()),
        body: fs::read(&path).expect("a body"),
        path,
    };
    paths.into_iter().map(read).collect()
}

fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.lines() {
        let (name, value) = line.split_once(": ").expect("name: value");
        let name: HeaderName = name.parse().expect("a header's name");
        headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    headers
}

fn shown(parsed: &Result<Notification, Malformed>) -> String {
    let notification = match parsed {
        Ok(notification) => notification,
        Err(malformed) => return format!("refused\n{malformed}\n"),
    };
    let mut text = format!("{}\n", notification.source.as_str());
    match &notification.content {
        Content::Objects { events, skipped, malformed } => {
            for event in events {
                writeln!(text, "{event:?}").expect("a string takes it");
            }
            for event in malformed {
                writeln!(text, "malformed {event}").expect("a string takes it");
            }
            writeln!(text, "skipped {skipped}").expect("a string takes it");
        }
        other => writeln!(text, "{other:?}").expect("a string takes it"),
    }
    text
}

#[test]
fn every_shape_is_read_as_expected() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() > 50, "the cases are found");
    for case in cases {
        let found = shown(&parse(&case.headers, &case.body));
        let is_told = found.starts_with("refused\n") || found.contains("\nmalformed ");
        assert_eq!(case.name.starts_with("bad-"), is_told, "{}: {found}", case.name);
        let expected_path = case.path.with_extension("expected");
        if std::env::var_os("TIDEMILL_REWRITE").is_some() {
            fs::write(&expected_path, &found).expect("written");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- found\n{found}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bodies_and_events_are_bounded() {
    let record = r#"{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}"#;
    let body = |count: usize| format!("{{\"Records\":[{}]}}", vec![record; count].join(","));
    let parsed = parse(&HeaderMap::new(), body(MAX_EVENTS).as_bytes()).expect("as many as are read");
    assert!(matches!(parsed.content, Content::Objects { events, .. } if events.len() == MAX_EVENTS));
    let refused = parse(&HeaderMap::new(), body(MAX_EVENTS + 1).as_bytes()).expect_err("one more");
    assert_eq!((refused.path.as_str(), refused.reason.contains("10001 events")), ("Records", true), "{refused}");
    let refused = parse(&HeaderMap::new(), &vec![b' '; MAX_BODY_BYTES + 1]).expect_err("a large body");
    assert!(refused.reason.contains("1048577 bytes"), "{refused}");
}

/// A small generator of pseudo-random numbers (splitmix64), so that a failure names a seed that repeats it.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn mutate(seeded: &mut Seeded, body: &mut Vec<u8>, others: &[Case]) {
    const TOKENS: [&[u8]; 14] = [
        b"null",
        b"{}",
        b"[]",
        b"-1",
        b"1e999",
        b"\"\"",
        b"\\u0000",
        b"\xff",
        b"18446744073709551616",
        b"%",
        b"+",
        b"{\"a\":",
        b"]",
        b"\"",
    ];
    for _ in 0..=seeded.below(4) {
        let at = seeded.below(body.len() + 1);
        let end = (at + seeded.below(12)).min(body.len());
        match seeded.below(5) {
            0 => drop(body.drain(at..end)),
            1 => drop(body.splice(at..end, TOKENS[seeded.below(TOKENS.len())].iter().copied())),
            2 => body.truncate(at),
            3 if at < body.len() => body[at] ^= 1 << seeded.below(8),
            _ => {
                let other = &others[seeded.below(others.len())].body;
                let from = seeded.below(other.len() + 1);
                let piece = other[from..(from + 64).min(other.len())].to_vec();
                drop(body.splice(at..end, piece));
            }
        }
    }
}

#[test]
fn no_body_makes_the_parser_panic() {
    let cases = cases();
    for seed in 0..20_000 {
        let mut seeded = Seeded(seed);
        let case = &cases[seeded.below(cases.len())];
        let mut body = case.body.clone();
        body.truncate(4096);
        mutate(&mut seeded, &mut body, &cases);
        let outcome = std::panic::catch_unwind(|| parse(&case.headers, &body));
        let parsed = outcome.unwrap_or_else(|_| panic!("seed {seed}, from {}", case.name));
        match parsed {
            Ok(Notification { content: Content::Objects { events, .. }, .. }) => {
                assert!(events.iter().all(|event| !event.key.is_empty() && !event.bucket.is_empty()), "seed {seed}");
            }
            Ok(_) => {}
            Err(malformed) => {
                assert!(!malformed.path.is_empty() && malformed.reason.len() < 2000, "seed {seed}: {malformed}")
            }
        }
    }
}
