//! How the tokens of PromQL look.

use crate::lexer::{Comments, Dialect, Nesting, Quotes, Unit, duration};

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1000 * MILLISECOND;
const DAY: i64 = 86_400 * SECOND;

/// The tokens of PromQL. A colon belongs to names outside of braces and brackets; a dot never does.
pub const DIALECT: Dialect = Dialect {
    operators: &[
        "(", ")", "{", "}", "[", "]", ",", ":", "@", "+", "-", "*", "/", "%", "^", "==", "=~", "=", "!=", "!~", "<=",
        "</", "<", ">=", ">/", ">",
    ],
    begins_name: |c, nesting| c.is_ascii_alphabetic() || c == '_' || is_colon(c, nesting),
    continues_name: |c, nesting| c.is_ascii_alphanumeric() || c == '_' || is_colon(c, nesting),
    quotes: Quotes::All,
    comments: Comments::Hash,
    dot_begins_number: true,
    radix_prefixes: true,
    durations: &[
        Unit { name: "ms", factor: MILLISECOND },
        Unit { name: "s", factor: SECOND },
        Unit { name: "m", factor: 60 * SECOND },
        Unit { name: "h", factor: 3600 * SECOND },
        Unit { name: "d", factor: DAY },
        Unit { name: "w", factor: 7 * DAY },
        Unit { name: "y", factor: 365 * DAY },
    ],
    strict_durations: true,
    sizes: &[],
};

fn is_colon(c: char, nesting: Nesting) -> bool {
    c == ':' && nesting.braces == 0 && nesting.brackets == 0
}

/// Reads a duration such as `1h30m`, in milliseconds; `0` needs no unit.
///
/// # Errors
/// Why it is none, in words.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    match text {
        "0" => Ok(0),
        _ => duration(text, &DIALECT).map(|nanoseconds| nanoseconds / MILLISECOND),
    }
}
