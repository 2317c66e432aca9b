//! What a file that a person loads is called: its raw object explains itself when the database is lost.
//!
//! Owns: the name of such an object, and what the name says. The bytes are the file's own, so that nothing is added to them as a trailer
//! is to pushed requests ([`crate::raw_object`]). Start with [`loaded_object_key`].

use tidemill_segment::ingest::InputFormat;
use tidemill_store::metastore::InputIdentity;
use tidemill_types::{Day, OrganizationId, Signal};

/// The collector's name in listings.
pub const LOADED_COLLECTOR: &str = "load";
/// Backfill comes after what is pushed and notified.
pub const LOADED_PRIORITY: i16 = 20;

const PREFIX: &str = "load-";
/// Characters of the file's own name that are kept.
const NAME_CHARS: usize = 100;

/// Where a loaded file is written: `raw/<organization>/<signal>/<YYYYMMDD>/load-<64 hex digits>-<format>-<name>`. Of the name the last
/// component is kept, without what paths and URLs give a meaning to.
pub fn loaded_object_key(
    (organization, signal, day): (OrganizationId, Signal, Day),
    identity: &InputIdentity,
    format: InputFormat,
    name: &str,
) -> String {
    let (identity, name) = (hex::encode(identity.0), plain_name(name));
    format!("raw/{organization}/{signal}/{day}/{PREFIX}{identity}-{format}-{name}")
}

/// The identity and the format that an object's name says; `None` for other names.
pub(crate) fn parse_loaded_name(name: &str) -> Option<(InputIdentity, InputFormat)> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let digits = parts.next().filter(|text| !text.bytes().any(|byte| byte.is_ascii_uppercase()))?;
    let identity: [u8; 32] = hex::decode(digits).ok()?.try_into().ok()?;
    let format = InputFormat::parse(parts.next()?)?;
    parts.next()?;
    Some((InputIdentity(identity), format))
}

fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let plain: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' }).collect();
    let from = plain.len().saturating_sub(NAME_CHARS);
    plain[from..].trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: InputIdentity = InputIdentity([0xab; 32]);

    fn name_of(name: &str) -> String {
        let owner = (OrganizationId(uuid::Uuid::from_u128(7)), Signal::Logs, Day(20_000));
        let key = loaded_object_key(owner, &IDENTITY, InputFormat::JsonLines, name);
        key.rsplit('/').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_name_says_identity_and_format_whatever_the_file_was_called() {
        for name in ["../a b/logs 1.json.gz", "", "..", "a-b-csv-c.csv", &format!("{}.csv", "ü".repeat(300))] {
            let object = name_of(name);
            assert_eq!(parse_loaded_name(&object), Some((IDENTITY, InputFormat::JsonLines)), "{object}");
            assert!(object.len() < 200 && object.is_ascii(), "{object}");
        }
        assert!(name_of("../a b/logs 1.json.gz").ends_with("-json_lines-logs_1.json.gz"));
        assert!(name_of(&format!("{}.csv", "x".repeat(300))).ends_with("x.csv"));
    }

    #[test]
    fn other_names_are_not_ours() {
        let digits = "ab".repeat(32);
        for name in [
            "load-".to_owned(),
            format!("load-{digits}"),
            format!("load-{digits}-csv"),
            format!("load-{digits}-xml-a"),
            format!("load-{}-csv-a", &digits[1..]),
            format!("load-{}-csv-a", digits.to_uppercase()),
            format!("{digits}-csv-a"),
        ] {
            assert_eq!(parse_loaded_name(&name), None, "{name}");
        }
    }

    /// Frozen: a bucket holds such objects when its database is lost.
    #[test]
    fn the_shape_of_a_name_never_changes() {
        assert_eq!(name_of("x.json"), format!("load-{}-json_lines-x.json", "ab".repeat(32)));
    }
}
