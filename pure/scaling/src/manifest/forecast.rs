//! The forecast of a `ScaledObject` or `HorizontalPodAutoscaler`, asked for by annotations: the manifests stay valid for a cluster.

use std::collections::BTreeMap;

use super::place::Place;
use crate::forecast::{Method, Mode, Policy};

const PREFIX: &str = "tidemill.dev/forecast";
const KEYS: [&str; 5] = ["", "-method", "-season", "-lookahead", "-max-error"];
const DAY_MS: i64 = 86_400_000;
/// The longest season or look-ahead: four weeks.
const MAX_MS: i64 = 28 * DAY_MS;
const INTERVAL_MS: i64 = 60_000;

/// What the annotations ask for; every problem is noted at the object's metadata.
pub(super) fn read(spec: &Place<'_>, annotations: &BTreeMap<String, String>) -> Option<Policy> {
    let note = |key: &str, message: String| spec.note_at(&format!("metadata.annotations.{PREFIX}{key}"), message);
    let get = |key: &str| annotations.get(&format!("{PREFIX}{key}")).map(String::as_str);
    for name in annotations.keys() {
        if let Some(key) = name.strip_prefix(PREFIX)
            && !KEYS.contains(&key)
        {
            let known: Vec<String> = KEYS.iter().map(|key| format!("{PREFIX}{key}")).collect();
            note(key, format!("unknown annotation; they are {}", known.join(", ")));
        }
    }
    let duration = |key: &str, default: i64| match get(key) {
        None => default,
        Some(text) => duration_ms(text).filter(|ms| (INTERVAL_MS..=MAX_MS).contains(ms)).unwrap_or_else(|| {
            note(key, format!("expected a time from 1m to 28d, as 90s, 5m, 1h or 7d, found {text:?}"));
            default
        }),
    };
    let season_ms = duration("-season", DAY_MS);
    let lookahead_ms = duration("-lookahead", INTERVAL_MS);
    let max_error = match get("-max-error") {
        None => 0.3,
        Some(text) => text.parse::<f64>().ok().filter(|error| *error > 0.0 && *error <= 10.0).unwrap_or_else(|| {
            note("-max-error", format!("expected a relative error above 0 and up to 10, as 0.3, found {text:?}"));
            0.3
        }),
    };
    let method = match get("-method") {
        None | Some("seasonal-naive") => Method::SeasonalNaive { season_ms },
        Some("linear") => {
            Method::Linear { window_ms: if get("-season").is_some() { season_ms } else { 15 * INTERVAL_MS } }
        }
        Some("holt-winters") => Method::HoltWintersFitted { season_ms },
        Some(other) => {
            note("-method", format!("expected seasonal-naive, linear or holt-winters, found {other:?}"));
            Method::SeasonalNaive { season_ms }
        }
    };
    let mode = match get("") {
        None => return None,
        Some("off") => Mode::Off,
        Some("preview") => Mode::Preview,
        Some("on") => Mode::On,
        Some(other) => {
            note("", format!("expected off, preview or on, found {other:?}"));
            return None;
        }
    };
    Some(Policy { mode, method, interval_ms: INTERVAL_MS, lookahead_ms, max_error, error_window: 60 })
}

fn duration_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let number: i64 = text.strip_suffix(unit)?.parse().ok()?;
    let unit_ms = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        _ => return None,
    };
    number.checked_mul(unit_ms).filter(|ms| *ms > 0)
}
