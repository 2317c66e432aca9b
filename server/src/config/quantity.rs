//! Sizes and durations as people write them.

use std::time::Duration;

/// Reads `64MiB`, `2GB`, `1048576`.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        other => return Err(format!("{other:?} is no unit of size; one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no size; write as 64MiB or 2GB"))?;
    number.checked_mul(scale).ok_or_else(|| format!("{text:?} is more than 2^64 bytes"))
}

/// Reads `20ms`, `30s`, `5m`, `1h`, `7d`.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let scale_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("{text:?} has no unit; write as 20ms, 30s, 5m, 1h or 7d")),
        other => return Err(format!("{other:?} is no unit of time; one of ms, s, m, h, d")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is no duration; write as 20ms, 30s, 5m, 1h or 7d"))?;
    number.checked_mul(scale_ms).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// Writes a size with its largest unit that keeps it above one: `64.0 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_need_known_units() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("2 GB"), Ok(2_000_000_000));
        assert!(parse_bytes("5 apples").expect_err("is refused").contains("apples"));
        assert!(parse_bytes("99999999999TiB").is_err());
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(parse_duration("30").expect_err("is refused").contains("unit"));
        assert!(parse_duration("-1s").is_err());
    }

    #[test]
    fn sizes_are_written_short() {
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(64 << 20), "64.0 MiB");
    }
}
