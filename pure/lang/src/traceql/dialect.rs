//! How TraceQL's tokens look.
//!
//! A name is a word, or an attribute with its scope (`span.http.status_code`); it ends at a blank or one of `{}()=~!<>&|^,`. Parts of an
//! attribute in quotes are texts of their own, which the parser joins.

use crate::lexer::{Comments, Dialect, Nesting, Quotes, Unit};

const SECOND: i64 = 1_000_000_000;

const fn unit(name: &'static str, factor: i64) -> Unit {
    Unit { name, factor }
}

/// TraceQL's dialect.
pub(crate) static DIALECT: Dialect = Dialect {
    operators: &[
        "{", "}", "(", ")", ",", "|", "=", "!=", "=~", "!~", "!", ">", ">=", ">>", "<", "<=", "<<", "~", "!>", "!>>",
        "!<", "!<<", "&>", "&>>", "&<", "&<<", "&~", "&&", "||", "+", "-", "*", "/", "%", "^",
    ],
    begins_name,
    continues_name,
    quotes: Quotes::DoubleAndBack,
    comments: Comments::Slashes,
    dot_begins_number: true,
    radix_prefixes: false,
    durations: &[
        unit("ns", 1),
        unit("us", 1_000),
        unit("µs", 1_000),
        unit("μs", 1_000),
        unit("ms", 1_000_000),
        unit("s", SECOND),
        unit("m", 60 * SECOND),
        unit("h", 3_600 * SECOND),
        unit("d", 86_400 * SECOND),
        unit("w", 7 * 86_400 * SECOND),
    ],
    strict_durations: false,
    sizes: &[],
};

fn begins_name(c: char, _: Nesting) -> bool {
    c.is_alphabetic() || c == '_' || c == '.'
}

fn continues_name(c: char, _: Nesting) -> bool {
    !c.is_whitespace() && !"{}()=~!<>&|^,\"`".contains(c)
}
