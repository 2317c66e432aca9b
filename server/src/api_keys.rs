//! API keys as YAML: a list of organizations with their keys, alone or in a chart's values as `apiKeys.yaml`.
//!
//! Owns: reading the text. Never: storing or comparing keys; no message holds one. Start with [`parse_api_keys`].

use std::collections::HashMap;
use std::fmt;

use tidemill_types::OrganizationId;

use crate::profiles::Problems;
use crate::profiles::reader::{Notes, Place, list_or_chart_section, parse_document};

/// The keys of one organization, as they are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeySet {
    /// Whose keys.
    pub organization: OrganizationId,
    /// The keys themselves.
    pub keys: Vec<String>,
}

impl fmt::Debug for ApiKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeySet {{ organization: {}, keys: {} masked }}", self.organization, self.keys.len())
    }
}

/// Reads API keys. `label` names the text in problems.
///
/// # Errors
/// All problems of the text, each with its line and path.
pub fn parse_api_keys(label: &str, text: &str) -> Result<Vec<ApiKeySet>, Problems> {
    let document = parse_document(label, text)?;
    let notes = Notes::default();
    let mut first = HashMap::new();
    let mut sets = Vec::new();
    for place in list_or_chart_section(Place::root(&document, &notes), "apiKeys", "organizations with their keys") {
        if !place.allow_only(&["organization_id", "keys"]) {
            continue;
        }
        let organization = place.required("organization_id").and_then(|field| field.organization());
        let listed = place.required("keys").map(|field| field.items("keys")).unwrap_or_default();
        let mut keys = Vec::with_capacity(listed.len());
        for key in listed {
            let Some(text) = read_key(&key) else { continue };
            let earlier: &Place<'_> = first.entry(text).or_insert_with(|| key.clone());
            if earlier.path() != key.path() {
                key.note(format!("is the same key as {} (line {})", earlier.path(), earlier.line()));
            }
            keys.push(text.to_owned());
        }
        if let Some(organization) = organization {
            sets.push(ApiKeySet { organization, keys });
        }
    }
    Problems::unless(label, notes.take(), sets)
}

/// A key that a header can carry.
fn read_key<'a>(place: &Place<'a>) -> Option<&'a str> {
    let text = place.text_without_value()?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(text);
    }
    place.note("a key is made of visible ASCII characters, without spaces");
    None
}
