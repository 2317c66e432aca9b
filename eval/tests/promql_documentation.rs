//! `docs/promql.md` names every function and aggregation, and only tests that exist.

use std::path::Path;

use tidemill_lang::promql::{AggregateOp, FUNCTIONS};

#[test]
fn the_page_names_all_and_its_tests_exist() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(crate_folder.join("../docs/promql.md")).expect("docs/promql.md");
    let names: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let known = FUNCTIONS.iter().map(|function| function.name).chain(AggregateOp::ALL.map(AggregateOp::as_str));
    for name in known {
        assert!(names.contains(&name), "{name} is not on the page");
    }
    let tests: Vec<&&str> = names.iter().filter(|name| name.ends_with(".test")).collect();
    assert!(!tests.is_empty());
    for test in tests {
        let exists =
            ["promql", "scripts"].iter().any(|folder| crate_folder.join("tests").join(folder).join(test).exists());
        assert!(exists, "{test} is named on the page, but there is no such script");
    }
}
