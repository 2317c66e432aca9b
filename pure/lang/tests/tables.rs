//! The tables of `docs/logql.md` and `docs/traceql.md` say what the parsers do, and name tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidemill_lang::Error;

/// A row of a table: construct, example, whether it is supported, and its test.
struct Row {
    construct: String,
    example: String,
    is_supported: bool,
    test: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rows(page: &str) -> Vec<Row> {
    let text = fs::read_to_string(repository().join(page)).expect(page);
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let unescaped = line.replace("\\|", "\u{0}");
        let cells: Vec<String> =
            unescaped.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
        let [construct, example, here, test] = cells.as_slice() else { panic!("{page}: {line}") };
        if construct == "construct" {
            continue;
        }
        let is_supported = match here.as_str() {
            "supported" => true,
            "refused" => false,
            other => panic!("{page}: {construct} is {other:?}"),
        };
        let example = example.trim_matches('`').trim().to_owned();
        rows.push(Row { construct: construct.clone(), example, is_supported, test: test.clone() });
    }
    rows
}

/// The names of functions in the Rust files below a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            functions(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("a file");
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

fn check(page: &str, cases: &str, parse: impl Fn(&str) -> Result<(), Error>, at_least: usize) {
    let cases = fs::read_to_string(repository().join(cases)).expect(cases);
    let mut known = BTreeSet::new();
    for folder in ["pure/lang/src", "pure/lang/tests", "eval/src", "eval/tests"] {
        functions(&repository().join(folder), &mut known);
    }
    let rows = rows(page);
    for row in &rows {
        let Row { construct, example, is_supported, test } = row;
        match parse(example) {
            Ok(()) => assert!(is_supported, "{page}: {construct} is read: {example}"),
            Err(error) => {
                assert!(!is_supported, "{page}: {construct} is refused: {example}: {error}");
                assert!(error.span.end <= example.len(), "{page}: {construct} has no place: {error}");
            }
        }
        match test.strip_prefix("cases: ") {
            Some(group) => {
                assert!(cases.contains(&format!("\"group\":\"{group}\"")), "{page}: {construct}: no group {group}");
            }
            None => assert!(known.contains(test), "{page}: {construct}: no test {test}"),
        }
    }
    assert!(rows.len() >= at_least, "{page} has {} rows", rows.len());
}

#[test]
fn the_logql_page_tells_what_the_parser_reads() {
    let parse = |text: &str| tidemill_lang::logql::parse(text).map(drop);
    check("docs/logql.md", "eval/tests/logql/cases.json", parse, 160);
}

#[test]
fn every_template_function_is_on_the_logql_page() {
    let listed: Vec<String> = rows("docs/logql.md").into_iter().map(|row| row.construct).collect();
    for function in tidemill_lang::logql::template::FUNCTIONS {
        assert!(listed.iter().any(|own| own == function), "{function}");
    }
}

#[test]
fn the_traceql_page_tells_what_the_parser_reads() {
    let parse = |text: &str| tidemill_lang::traceql::parse(text).map(drop);
    check("docs/traceql.md", "eval/tests/traceql/cases.json", parse, 50);
}

#[test]
fn distinct_is_refused() {
    let error = tidemill_lang::logql::parse("{app=\"x\"} | distinct a").expect_err("refused");
    assert_eq!(error.to_string(), "1:13: the stage `distinct` is not supported");
}

#[test]
fn variants_are_refused() {
    let error = tidemill_lang::logql::parse("variants(rate({a=\"b\"}[1m])) of ({a=\"b\"}[1m])").expect_err("refused");
    assert_eq!(error.to_string(), "1:1: `variants` is not supported");
}

#[test]
fn hints_change_nothing() {
    let printed = |text| tidemill_lang::traceql::print::print(&tidemill_lang::traceql::parse(text).expect("a query"));
    let hinted = printed("{ } | rate() with (sample=true, whatever=3)");
    assert_eq!(hinted, format!("{} with (sample=true, whatever=3)", printed("{ } | rate()")));
}
