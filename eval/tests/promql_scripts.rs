//! Prometheus's own test scripts, and ours, pass completely, over one partition and over several.

use std::path::Path;

use tidemill_eval::promql::script::{MemoryPartitions, run};

fn scripts() -> Vec<(String, String)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut scripts: Vec<(String, String)> = ["promql", "scripts"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(tests.join(folder)).expect("the folder of scripts"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("UTF-8"))
        })
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 13, "scripts are missing in {}", tests.display());
    scripts
}

fn check(partitions: usize) {
    let mut told = String::new();
    for (name, script) in scripts() {
        let report = run(&script, &mut MemoryPartitions::new(partitions));
        assert!(report.passed > 0 || !report.failed.is_empty(), "{name} holds no query");
        for failure in &report.failed {
            told += &format!("{name}:{}: {}\n    {}\n", failure.line, failure.what, failure.message);
        }
        eprintln!("{name}: {} passed, {} failed", report.passed, report.failed.len());
    }
    assert!(told.is_empty(), "\n{told}");
}

#[test]
fn scripts_pass() {
    check(1);
}

#[test]
fn scripts_pass_in_partitions() {
    check(3);
}
