//! Durations and sizes as log lines carry them.

/// Reads a duration as Go writes it (`1h2m3.5s`, `250us`), in nanoseconds.
pub(super) fn parse_duration_ns(text: &str) -> Option<f64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit_end..];
    }
    Some(if is_negative { -total } else { total })
}

/// Reads a size (`42MB`, `1.5 KiB`, `1,024`), in bytes; fractions of a byte are dropped.
pub(super) fn parse_bytes(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    let number: f64 = text[..digits].replace(',', "").parse().ok()?;
    let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "p" | "pb" => 1e15,
        "e" | "eb" => 1e18,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1_048_576.0,
        "gi" | "gib" => 1_073_741_824.0,
        "ti" | "tib" => 1_099_511_627_776.0,
        "pi" | "pib" => 1_125_899_906_842_624.0,
        "ei" | "eib" => 1_152_921_504_606_846_976.0,
        _ => return None,
    };
    Some((number * factor).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(parse_duration_ns("1m46s"), Some(106e9));
        assert_eq!(parse_duration_ns("-1.5h"), Some(-5400e9));
        assert_eq!(parse_duration_ns("250us"), Some(250e3));
        assert_eq!(parse_duration_ns("0"), Some(0.0));
        for bad in ["", "n/a", "5", "1d", "s", "1s2", "-"] {
            assert_eq!(parse_duration_ns(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_in_both_systems() {
        assert_eq!(parse_bytes("6 KiB"), Some(6144.0));
        assert_eq!(parse_bytes("20kB"), Some(20_000.0));
        assert_eq!(parse_bytes("3.5MiB"), Some(3_670_016.0));
        assert_eq!(parse_bytes("1,024"), Some(1024.0));
        for bad in ["", "junk", "5 parsecs", "."] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
