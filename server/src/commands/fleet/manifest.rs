//! Manifests: files, folders and standard input, YAML or JSON, with several documents or a `List`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::yaml;
use crate::error::{Error, Result};

/// The largest file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// One object of a manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Where it was read.
    pub file: String,
    /// The object.
    pub object: Value,
}

/// Every object of these files and folders; `-` is standard input. Of a folder, files ending in `.yaml`, `.yml` and `.json` are read, by name.
///
/// # Errors
/// Every file that cannot be read, at once.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        for file in files(path)? {
            match read_file(&file) {
                Ok(manifests) => found.extend(manifests),
                Err(problem) => problems.push(format!("{}: {problem}", file.display())),
            }
        }
    }
    if !problems.is_empty() {
        return Err(Error::invalid(problems.join("\n")));
    }
    if found.is_empty() {
        return Err(Error::invalid("there are no objects in what was given"));
    }
    Ok(found)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.as_os_str() == "-" || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let listed = std::fs::read_dir(path).map_err(|error| Error::io(path.display().to_string(), error))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|item| Some(item.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known)));
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> std::result::Result<Vec<Manifest>, String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 == MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    let mut found = Vec::new();
    for document in yaml::documents(&text)? {
        let items = match document.get("kind").and_then(Value::as_str) {
            Some(kind) if kind.ends_with("List") && document.get("items").is_some_and(Value::is_array) => {
                document.get("items").and_then(Value::as_array).cloned().unwrap_or_default()
            }
            Some(_) => vec![document],
            None => return Err("a document has no kind: it is no object".to_owned()),
        };
        found.extend(items.into_iter().map(|object| Manifest { file: path.display().to_string(), object }));
    }
    Ok(found)
}
