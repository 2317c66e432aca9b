//! Prefix mappings.

use std::collections::HashMap;

use tidemill_types::PrefixMapping;

use super::problems::Problems;
use super::reader::{Notes, Place, parse_document};

const FIELDS: [&str; 4] = ["bucket", "organization_id", "path_prefix", "signal"];

/// Reads prefix mappings: a YAML list of `bucket`, `organization_id`, `path_prefix` and, optionally, `signal`.
///
/// # Errors
/// All problems of the text, each with its line and path.
pub fn parse_mappings(label: &str, text: &str) -> Result<Vec<PrefixMapping>, Problems> {
    let document = parse_document(label, text)?;
    let notes = Notes::default();
    let places = Place::root(&document, &notes).items("prefix mappings");
    let mut mappings = Vec::with_capacity(places.len());
    let mut first: HashMap<(String, String), Place<'_>> = HashMap::new();
    for place in places {
        let Some(mapping) = read_mapping(&place) else { continue };
        let id = (mapping.bucket.clone(), mapping.path_prefix.clone());
        match first.get(&id) {
            Some(earlier) => {
                place.note(format!(
                    "this bucket and path_prefix are mapped by {} (line {})",
                    earlier.path(),
                    earlier.line()
                ));
            }
            None => {
                first.insert(id, place);
            }
        }
        mappings.push(mapping);
    }
    Problems::unless(label, notes.take(), mappings)
}

fn read_mapping(place: &Place<'_>) -> Option<PrefixMapping> {
    if !place.allow_only(&FIELDS) {
        return None;
    }
    let bucket = place.required("bucket").and_then(|field| field.text());
    let organization = place.required("organization_id").and_then(|field| field.organization());
    let path_prefix = place.required("path_prefix").and_then(|field| read_prefix(&field));
    let signal = match place.field("signal") {
        None => Some(None),
        Some(field) => {
            field.text().and_then(|text| text.parse().map_err(|problem: String| field.note(problem)).ok()).map(Some)
        }
    };
    Some(PrefixMapping {
        bucket: bucket?.to_owned(),
        organization: organization?,
        path_prefix: path_prefix?,
        signal: signal?,
    })
}

/// A prefix under which there can be inputs; `""` means all of the bucket.
fn read_prefix(field: &Place<'_>) -> Option<String> {
    let text = field.text_or_empty()?;
    let problem = if text.starts_with('/') {
        "starts with '/', which no key does"
    } else if text.starts_with("db/") {
        "is under db/, where segments are kept; nothing there is an input"
    } else if text.starts_with("otel-raw/") {
        "is under otel-raw/, where each key names its organization itself"
    } else {
        return Some(text.to_owned());
    };
    field.note(format!("{text:?} {problem}"));
    None
}
