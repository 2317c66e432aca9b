//! From tree to text, as Prometheus prints it.

use std::fmt::{self, Display, Formatter};

use super::ast::{
    Aggregate, At, Binary, Cardinality, Expr, ExprKind, Extension, LabelMatcher, Length, LengthKind, Matching, Number,
    Selector, Text, When,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(number) => number.fmt(f),
            ExprKind::Text(text) => text.fmt(f),
            ExprKind::Paren(inner) => write!(f, "({inner})"),
            ExprKind::Unary { is_negative, expr } => write!(f, "{}{expr}", if *is_negative { "-" } else { "+" }),
            ExprKind::Binary(binary) => binary.fmt(f),
            ExprKind::Aggregate(aggregate) => aggregate.fmt(f),
            ExprKind::Call(call) => write!(f, "{}({})", call.function.name, list(&call.args)),
            ExprKind::Vector(selector) => {
                selector.fmt_series(f)?;
                selector.when.fmt_at(f)?;
                fmt_extension(selector.extension, f)?;
                selector.when.fmt_offset(f)
            }
            ExprKind::Matrix(matrix) => {
                matrix.selector.fmt_series(f)?;
                write!(f, "[{}]", matrix.range)?;
                fmt_extension(matrix.selector.extension, f)?;
                matrix.selector.when.fmt_at(f)?;
                matrix.selector.when.fmt_offset(f)
            }
            ExprKind::Subquery(subquery) => {
                write!(f, "{}[{}:", subquery.expr, subquery.range)?;
                if let Some(step) = &subquery.step {
                    step.fmt(f)?;
                }
                f.write_str("]")?;
                subquery.when.fmt_at(f)?;
                subquery.when.fmt_offset(f)
            }
        }
    }
}

impl Display for Text {
    /// In double quotes; bytes that are no UTF-8 as `\\xff`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut quoted = String::from("\"");
        for chunk in self.0.utf8_chunks() {
            chunk.valid().chars().for_each(|c| push_escaped(&mut quoted, c));
            chunk.invalid().iter().for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")));
        }
        quoted.push('"');
        f.write_str(&quoted)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            f.write_str(&format_duration((self.value * 1000.0).round() as i64))
        } else if self.value.is_infinite() {
            f.write_str(if self.value > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(f, "{}", self.value)
        }
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.left, self.op.as_str())?;
        if self.returns_bool {
            f.write_str(" bool")?;
        }
        write!(f, "{} {}", self.matching, self.right)
    }
}

impl Display for Matching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = match self.cardinality {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if self.is_on || !self.labels.is_empty() || side.is_some() {
            write!(f, " {} ({})", if self.is_on { "on" } else { "ignoring" }, names(&self.labels))?;
        }
        if let Some(side) = side {
            write!(f, " group_{side} ({})", names(&self.include))?;
        }
        let number = |value: f64| Number { value, is_duration: false };
        match (self.fill_left, self.fill_right) {
            (Some(left), Some(right)) if left == right || (left.is_nan() && right.is_nan()) => {
                write!(f, " fill ({})", number(left))
            }
            (left, right) => {
                left.map_or(Ok(()), |left| write!(f, " fill_left ({})", number(left)))?;
                right.map_or(Ok(()), |right| write!(f, " fill_right ({})", number(right)))
            }
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.as_str())?;
        if self.is_without {
            write!(f, " without ({}) ", names(&self.grouping))?;
        } else if !self.grouping.is_empty() {
            write!(f, " by ({}) ", names(&self.grouping))?;
        }
        match &self.param {
            Some(param) => write!(f, "({param}, {})", self.expr),
            None => write!(f, "({})", self.expr),
        }
    }
}

impl Selector {
    /// The selector without its modifiers.
    fn fmt_series(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or_default())?;
        if self.matchers.is_empty() && self.name.is_some() {
            Ok(())
        } else {
            write!(f, "{{{}}}", joined(&self.matchers, ","))
        }
    }
}

impl Display for Selector {
    /// The selector without its modifiers.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt_series(f)
    }
}

impl Display for LabelMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", name(&self.name), self.op.as_str(), quote(&self.value))
    }
}

impl When {
    fn fmt_at(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(At::Time(milliseconds)) => write!(f, " @ {:.3}", milliseconds as f64 / 1000.0),
            Some(At::Start) => f.write_str(" @ start()"),
            Some(At::End) => f.write_str(" @ end()"),
            None => Ok(()),
        }
    }

    fn fmt_offset(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.offset.as_ref().map_or(Ok(()), |offset| write!(f, " offset {offset}"))
    }
}

impl Display for Length {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LengthKind::Number(number) => number.fmt(f),
            LengthKind::Step => f.write_str("step()"),
            LengthKind::Range => f.write_str("range()"),
            LengthKind::Unary { is_negative, length } => write!(f, "{}{length}", if *is_negative { "-" } else { "+" }),
            LengthKind::Binary { op, left, right } => write!(f, "{left} {} {right}", op.as_str()),
            LengthKind::Extreme { is_max, left, right } => {
                write!(f, "{}({left}, {right})", if *is_max { "max" } else { "min" })
            }
            LengthKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

fn fmt_extension(extension: Option<Extension>, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(match extension {
        Some(Extension::Anchored) => " anchored",
        Some(Extension::Smoothed) => " smoothed",
        None => "",
    })
}

/// Milliseconds as a duration: years and weeks only where nothing is left over, since `90d` reads better than `12w6d`.
pub fn format_duration(milliseconds: i64) -> String {
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::from(if milliseconds < 0 { "-" } else { "" });
    let mut left = milliseconds.unsigned_abs();
    let day = 86_400_000;
    let units = [("y", 365 * day), ("w", 7 * day), ("d", day), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    for (at, (unit, length)) in units.into_iter().enumerate() {
        let count = left / length;
        if count > 0 && (at > 1 || left.is_multiple_of(length)) {
            text += &format!("{count}{unit}");
            left -= count * length;
        }
    }
    text
}

fn list(exprs: &[Expr]) -> String {
    joined(exprs, ", ")
}

fn joined<T: Display>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

fn names(labels: &[String]) -> String {
    labels.iter().map(|label| name(label)).collect::<Vec<_>>().join(", ")
}

/// A label's name, in quotes where it is no identifier.
fn name(label: &str) -> String {
    let is_plain = !label.is_empty()
        && !label.starts_with(|c: char| c.is_ascii_digit())
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_plain { label.to_owned() } else { quote(label) }
}

/// `text` in double quotes, with escapes where it needs them.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    text.chars().for_each(|c| push_escaped(&mut quoted, c));
    quoted.push('"');
    quoted
}

fn push_escaped(quoted: &mut String, c: char) {
    match c {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => quoted.push(c),
    }
}
