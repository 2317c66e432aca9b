//! The committed case files, and what must not pass.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemill_scaling::cases::run;

fn files() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let paths = std::fs::read_dir(folder).expect("a folder of cases").map(|entry| entry.expect("readable").path());
    paths
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            (path, serde_json::from_str(&text).expect("JSON"))
        })
        .collect()
}

#[test]
fn every_case_passes() {
    let mut passed = 0;
    let mut failed = Vec::new();
    for (path, document) in files() {
        for result in run(&document).expect("cases") {
            if result.is_passed() {
                passed += 1;
            } else {
                failed.push(format!("{} {} {}: {:?}", path.display(), result.id, result.name, result.problems));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed, {passed} passed:\n{}", failed.len(), failed.join("\n"));
    assert!(passed >= 200, "only {passed} cases were found");
}

#[test]
fn a_changed_expectation_fails() {
    for (path, mut document) in files() {
        let kinds = document["cases"].as_array().cloned();
        let Some(cases) = kinds else { continue };
        let mut caught = 0;
        for case in &cases {
            let mut changed = case.clone();
            let Some(expected) = changed["expect"].as_object_mut() else { continue };
            for value in expected.values_mut() {
                *value = json!("something else");
            }
            document["cases"] = json!([changed]);
            let results = run(&document).expect("one case");
            assert!(!results[0].is_passed(), "{}: {}", path.display(), results[0].id);
            caught += 1;
        }
        assert_eq!(caught, cases.len());
    }
}

#[test]
fn unknown_kinds_and_expectations_fail() {
    for document in [
        json!({"cases": [{"id": "1", "kind": "tea_leaves", "input": {}, "expect": {"replicas": 1}}]}),
        json!({"tea_leaves": [{"created": 1}]}),
        json!({"cases": [{"id": "1", "kind": "margin", "input": {"base": 1, "margin": 0.1}, "expect": {"colour": "blue"}}]}),
        json!({"cases": [{"id": "1", "kind": "margin", "input": {"base": 1, "margin": 0.1}, "expect": {}}]}),
        json!({"cases": [{"id": "1", "kind": "margin", "input": {"base": 1}, "expect": {"amount": 1}}]}),
        json!({"cases": [{"id": "1", "kind": "margin"}]}),
    ] {
        let results = run(&document).expect("one case");
        assert!(!results[0].is_passed(), "{document}");
    }
    for document in [json!([]), json!({}), json!({"cases": []}), json!({"cases": 1}), json!({"about": "nothing"})] {
        assert!(run(&document).is_err(), "{document}");
    }
}

#[test]
fn an_input_that_is_not_understood_fails_and_words_about_a_case_do_not() {
    let case =
        |input: Value| json!({"cases": [{"kind": "clamp_default_rules", "input": input, "expect": {"replicas": 4}}]});
    let known = json!({"desired": 9, "max": 10, "min": 1, "current": 1, "note": "any order of fields"});
    assert!(run(&case(known.clone())).expect("one case")[0].is_passed());
    let mut unknown = known;
    unknown["surprise"] = json!(1);
    let results = run(&case(unknown)).expect("one case");
    assert!(results[0].problems[0].contains("input.surprise: unknown field"), "{:?}", results[0].problems);
    // The order of names in a set says nothing.
    let pods = |name: &str| json!({"name": name, "phase": "Pending", "ready": null});
    let grouped = json!({"cases": [{
        "kind": "group_pods",
        "input": {"pods": [pods("a"), pods("b")], "metrics": [], "resource": "cpu"},
        "expect": {"unready": ["b", "a"], "ready": 0},
    }]});
    assert_eq!(run(&grouped).expect("one case")[0].problems, Vec::<String>::new());
    // Strategies of a documented table are honoured, and a share may be a number.
    let table = |strategy: Value| {
        let mut case = json!({"queue": 10, "target": 1, "running": 4, "pending": 2, "maxReplica": 100, "created": 8});
        case.as_object_mut().expect("an object").extend(strategy.as_object().expect("an object").clone());
        json!({"docs_table": [case]})
    };
    assert!(run(&table(json!({"strategy": "accurate"}))).expect("one case")[0].is_passed());
    let custom = json!({"strategy": "custom", "custom_deduction": 0, "custom_pct": 0.5});
    assert!(run(&table(custom)).expect("one case")[0].is_passed());
    assert!(!run(&table(json!({"strategy": "default"}))).expect("one case")[0].is_passed());
}
