//! How LogQL's tokens look.

use crate::lexer::{Comments, Dialect, Nesting, Quotes, Unit};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

const fn unit(name: &'static str, factor: i64) -> Unit {
    Unit { name, factor }
}

/// Units of time, with their nanoseconds.
pub(crate) const DURATIONS: &[Unit] = &[
    unit("ns", 1),
    unit("us", 1_000),
    unit("µs", 1_000),
    unit("μs", 1_000),
    unit("ms", 1_000_000),
    unit("s", SECOND),
    unit("m", 60 * SECOND),
    unit("h", 3_600 * SECOND),
    unit("d", DAY),
    unit("w", 7 * DAY),
    unit("y", 365 * DAY),
];

/// Units of size, with their bytes.
pub(crate) const SIZES: &[Unit] = &[
    unit("B", 1),
    unit("kB", 1_000),
    unit("MB", 1_000_000),
    unit("GB", 1_000_000_000),
    unit("TB", 1_000_000_000_000),
    unit("PB", 1_000_000_000_000_000),
    unit("KiB", 1 << 10),
    unit("MiB", 1 << 20),
    unit("GiB", 1 << 30),
    unit("TiB", 1 << 40),
    unit("PiB", 1 << 50),
];

/// LogQL's dialect.
pub(crate) static DIALECT: Dialect = Dialect {
    operators: &[
        "{", "}", "(", ")", "[", "]", ",", "|", "=", "!=", "=~", "!~", "|=", "|~", "|>", "!>", "==", ">", ">=", "<",
        "<=", "+", "-", "*", "/", "%", "^",
    ],
    begins_name,
    continues_name,
    quotes: Quotes::DoubleAndBack,
    comments: Comments::HashAndSlashes,
    dot_begins_number: true,
    radix_prefixes: false,
    durations: DURATIONS,
    strict_durations: false,
    sizes: SIZES,
};

fn begins_name(c: char, _: Nesting) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char, _: Nesting) -> bool {
    c.is_alphanumeric() || c == '_'
}
