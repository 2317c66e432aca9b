//! Walks `golden/`: each `<kind>/<case>.yaml` must give exactly `<case>.expected`. `TIDEMILL_REWRITE=1` rewrites them.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Problems, parse_mappings, parse_profiles};
use crate::api_keys::parse_api_keys;

fn shown<T: Debug>(read: Result<Vec<T>, Problems>) -> String {
    match read {
        Ok(items) => items.iter().fold("accepted\n".to_owned(), |mut text, item| {
            writeln!(text, "{item:?}").expect("a string takes it");
            text
        }),
        Err(problems) => format!("refused\n{problems}\n"),
    }
}

fn read(kind: &str, label: &str, text: &str) -> String {
    match kind {
        "profiles" => shown(parse_profiles(label, text)),
        "mappings" => shown(parse_mappings(label, text)),
        "api_keys" => shown(parse_api_keys(label, text)),
        other => panic!("no reader for golden/{other}"),
    }
}

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/profiles/golden").join(kind);
    let entries = fs::read_dir(folder).expect("the folder of cases");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    cases
}

#[test]
fn every_case_gives_exactly_what_is_expected() {
    let rewrite = std::env::var_os("TIDEMILL_REWRITE").is_some();
    let mut wrong = Vec::new();
    for kind in ["profiles", "mappings", "api_keys"] {
        let cases = cases(kind);
        assert!(cases.len() >= 3, "golden/{kind} has cases");
        for case in cases {
            let text = fs::read_to_string(&case).expect("a case");
            let label = case.file_name().expect("a name").to_string_lossy().into_owned();
            let found = read(kind, &label, &text);
            let expected_path = case.with_extension("expected");
            if rewrite {
                fs::write(&expected_path, &found).expect("written");
            }
            let expected = fs::read_to_string(&expected_path).unwrap_or_default();
            if found != expected {
                wrong.push(format!("{kind}/{label}\n--- expected\n{expected}--- found\n{found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Prefixes and one-character changes of the cases are read or refused, never more.
#[test]
fn no_text_makes_the_readers_panic() {
    for kind in ["profiles", "mappings", "api_keys"] {
        for case in cases(kind) {
            let text = fs::read_to_string(&case).expect("a case");
            for (at, _) in text.char_indices().step_by(1 + text.len() / 60) {
                read(kind, "prefix", &text[..at]);
                for replacement in ["", "\t", "[", "}", "\"", "&", "*", "-", ":", "\n", "!"] {
                    let rest: String = text[at..].chars().skip(1).collect();
                    read(kind, "changed", &format!("{}{replacement}{rest}", &text[..at]));
                }
            }
        }
    }
}
