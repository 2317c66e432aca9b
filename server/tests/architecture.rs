//! The layers are what the manifests say: this reads `cargo metadata` and the sources, and fails on an edge, a dependency or a
//! module name that the design excludes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate, and the crates of the workspace that it may depend on. Arrows go down only.
const EDGES: &[(&str, &[&str])] = &[
    ("tidemill-types", &[]),
    ("tidemill-text", &["tidemill-types"]),
    ("tidemill-scaling", &["tidemill-types"]),
    ("tidemill-plan", &["tidemill-types", "tidemill-text", "tidemill-scaling"]),
    ("tidemill-lang", &["tidemill-types"]),
    ("tidemill-eval", &["tidemill-types", "tidemill-text", "tidemill-lang"]),
    ("tidemill-sim", &["tidemill-scaling"]),
    ("tidemill-source", &["tidemill-scaling"]),
    ("tidemill-fleet", &["tidemill-types", "tidemill-scaling", "tidemill-source"]),
    ("tidemill-segment", &["tidemill-types", "tidemill-text", "tidemill-plan"]),
    ("tidemill-store", &["tidemill-types", "tidemill-text", "tidemill-plan", "tidemill-scaling"]),
    (
        "tidemill-lake",
        &["tidemill-types", "tidemill-text", "tidemill-plan", "tidemill-scaling", "tidemill-segment", "tidemill-store"],
    ),
    (
        "tidemill-query",
        &[
            "tidemill-types",
            "tidemill-text",
            "tidemill-plan",
            "tidemill-segment",
            "tidemill-store",
            "tidemill-lang",
            "tidemill-eval",
        ],
    ),
    (
        "tidemill",
        &[
            "tidemill-types",
            "tidemill-text",
            "tidemill-plan",
            "tidemill-scaling",
            "tidemill-sim",
            "tidemill-source",
            "tidemill-fleet",
            "tidemill-segment",
            "tidemill-store",
            "tidemill-lake",
            "tidemill-query",
            "tidemill-lang",
            "tidemill-eval",
        ],
    ),
    // No code, only the features of shared dependencies.
    (FEATURES, &[]),
    // Measures the others from outside; nothing depends on it.
    ("tidemill-bench", &["tidemill-types", "tidemill-plan", "tidemill-store", "tidemill-segment"]),
];

/// Names features of outside dependencies so that every build shares them; the crates that are not pure may depend on it.
const FEATURES: &str = "tidemill-features";

/// Crates that decide and compute: no clock, no I/O, no randomness, so they may use only these from outside.
const PURE: &[&str] = &["tidemill-types", "tidemill-text", "tidemill-plan", "tidemill-scaling", "tidemill-lang"];
const PURE_MAY_USE: &[&str] =
    &["serde", "serde_json", "saphyr", "thiserror", "uuid", "blake3", "memchr", "jiff", "smallvec", "hex", "regex"];

/// What a pure crate's sources must not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "new_v4",
    "now_v7",
    "rand::",
];

/// Dependencies (by the start of their name) that are fenced in: only the crates listed may name them.
const FENCES: &[(&str, &[&str])] = &[
    ("datafusion", &["tidemill-query"]),
    ("rusqlite", &["tidemill-store", "tidemill-source", "tidemill-fleet"]),
    ("tokio-postgres", &["tidemill-store", "tidemill-source"]),
    ("deadpool-postgres", &["tidemill-store", "tidemill-source"]),
    // A source signs its requests to SQS with it.
    ("object_store", &["tidemill-store", "tidemill-lake", "tidemill-source"]),
    ("arrow", &["tidemill-segment", "tidemill-eval", "tidemill-query", "tidemill"]),
    ("parquet", &["tidemill-segment", "tidemill-query"]),
    ("axum", &["tidemill-lake", "tidemill"]),
    ("tonic", &["tidemill-lake", "tidemill-source", "tidemill"]),
    ("redis", &["tidemill-source"]),
    ("kafka-protocol", &["tidemill-source"]),
    ("clap", &["tidemill", "tidemill-bench"]),
];

/// `segment` turns bytes into bytes.
const NETWORK: &[&str] = &["tokio", "reqwest", "hyper", "axum", "tonic", "object_store", "tokio-postgres", "rustls"];

const VAGUE_MODULES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

struct Crate {
    folder: PathBuf,
    /// Every direct dependency, of any kind.
    all: BTreeSet<String>,
    /// Those that are not only for its own tests.
    shipped: BTreeSet<String>,
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("server/ lies in the tree").to_owned()
}

fn workspace() -> BTreeMap<String, Crate> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(tree())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let shipped = |dependency: &&Value| dependency["kind"] != "dev";
            let entry = Crate {
                folder: manifest.parent().expect("a manifest lies in a folder").to_owned(),
                all: dependencies.iter().map(|dependency| text(&dependency["name"])).collect(),
                shipped: dependencies.iter().filter(shipped).map(|dependency| text(&dependency["name"])).collect(),
            };
            (text(&package["name"]), entry)
        })
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn arrows_go_down_only() {
    let workspace = workspace();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for (name, package) in &workspace {
        let allowed =
            allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no place in the layout: add it to EDGES"));
        for dependency in package.all.iter().filter(|dependency| workspace.contains_key(*dependency)) {
            let is_features = dependency == FEATURES && !PURE.contains(&name.as_str());
            assert!(is_features || allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

/// Whether `word` stands in a line and no longer name ends with it there.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

#[test]
fn pure_crates_touch_nothing() {
    let workspace = workspace();
    for name in PURE {
        let package = &workspace[*name];
        for dependency in package.shipped.iter().filter(|dependency| !workspace.contains_key(*dependency)) {
            assert!(PURE_MAY_USE.contains(&dependency.as_str()), "{name} is pure and must not depend on {dependency}");
        }
        for path in sources(&package.folder.join("src")) {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                for word in IMPURE {
                    assert!(!names(line, word), "{}:{}: {word} in a pure crate", path.display(), number + 1);
                }
            }
        }
    }
}

#[test]
fn heavy_crates_stay_fenced() {
    for (name, package) in workspace().iter().filter(|(name, _)| *name != FEATURES) {
        for (prefix, owners) in FENCES {
            for dependency in package.shipped.iter().filter(|dependency| is_of_family(dependency, prefix)) {
                assert!(
                    owners.contains(&name.as_str()),
                    "{name} must not depend on {dependency}: it belongs to {owners:?}"
                );
            }
        }
        if name == "tidemill-segment" {
            for dependency in NETWORK {
                assert!(!package.shipped.contains(*dependency), "{name} must not depend on {dependency}");
            }
        }
    }
}

/// `datafusion` and `datafusion-expr` are of the family `datafusion`; `arrows` is not of `arrow`.
fn is_of_family(dependency: &str, family: &str) -> bool {
    dependency == family || dependency.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
}

#[test]
fn no_module_has_a_vague_name() {
    for package in workspace().values() {
        for path in sources(&package.folder.join("src")) {
            for part in path.strip_prefix(&package.folder).expect("inside").components() {
                let stem = Path::new(part.as_os_str()).file_stem().expect("a name").to_string_lossy().into_owned();
                assert!(!VAGUE_MODULES.contains(&stem.as_str()), "{}: say what it holds", path.display());
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for package in workspace().values() {
        for path in sources(&package.folder.join("src")) {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            assert!(text.starts_with("//!"), "{}: begins with no `//!` head", path.display());
        }
    }
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    for (_, package) in workspace().iter().filter(|(name, _)| *name != FEATURES) {
        let path = package.folder.join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(&path).expect("readable").parse().expect("TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, entry) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let is_inherited = entry.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(is_inherited, "{}: {name} must be `{name}.workspace = true`", path.display());
            }
        }
    }
}
