//! From tree to text on several lines.
//!
//! The rules are those of Prometheus's `promql/parser/prettier.go`: what fits on a line is printed as it is, and of
//! what does not, each part stands on lines of its own, one level further in. All pieces are cut from the text that
//! [`Expr`] prints. Start with [`pretty`].

use super::ast::{Binary, Expr, ExprKind, Subquery};

/// What is longer, its indentation not counted, is broken.
const LINE_BYTES: usize = 100;
const INDENT: &str = "  ";
/// What stands further in is not broken: each level prints its parts again. So many operators may follow each other.
const DEEPEST_LEVEL: usize = 500;

/// The text of a query, with line breaks where it is long. It parses to the same tree.
pub fn pretty(expr: &Expr) -> String {
    Breaker { line_bytes: LINE_BYTES }.text(expr)
}

/// Breaks what is longer than a line.
struct Breaker {
    line_bytes: usize,
}

impl Breaker {
    fn text(&self, expr: &Expr) -> String {
        let mut out = String::new();
        self.write(expr, 0, &mut out);
        out
    }

    /// Adds the lines of an expression that stands so many levels in.
    fn write(&self, expr: &Expr, level: usize, out: &mut String) {
        let whole = expr.to_string();
        let is_short = whole.len() <= self.line_bytes || level >= DEEPEST_LEVEL;
        match &expr.kind {
            // Its sign does not count.
            ExprKind::Unary { is_negative, expr } => self.write_signed(*is_negative, expr, level, out),
            // Prometheus does not indent it.
            ExprKind::Subquery(_) if is_short => out.push_str(&whole),
            ExprKind::Subquery(subquery) => self.write_subquery(subquery, &whole, level, out),
            ExprKind::Binary(binary) if !is_short => self.write_binary(binary, &whole, level, out),
            ExprKind::Paren(_) | ExprKind::Aggregate(_) | ExprKind::Call(_) if !is_short => {
                self.write_list(expr, &whole, level, out);
            }
            _ => {
                indent(level, out);
                out.push_str(&whole);
            }
        }
    }

    /// Adds a sign and, right behind it, what it stands before.
    fn write_signed(&self, is_negative: bool, expr: &Expr, level: usize, out: &mut String) {
        indent(level, out);
        out.push(if is_negative { '-' } else { '+' });
        let from = out.len();
        self.write(expr, level, out);
        let first = out[from..].find(|letter: char| !letter.is_whitespace()).unwrap_or(0);
        out.replace_range(from..from + first, "");
    }

    /// Adds the inner expression and, right behind it, range, step and modifiers.
    fn write_subquery(&self, subquery: &Subquery, whole: &str, level: usize, out: &mut String) {
        self.write(&subquery.expr, level, out);
        out.push_str(whole.strip_prefix(subquery.expr.to_string().as_str()).unwrap_or_default());
    }

    /// Adds both sides and, between them and one level further out, the operator with its modifiers.
    fn write_binary(&self, binary: &Binary, whole: &str, level: usize, out: &mut String) {
        let (left, right) = (binary.left.to_string(), binary.right.to_string());
        let rest = whole.strip_prefix(left.as_str()).unwrap_or_default();
        let operator = rest.strip_suffix(right.as_str()).unwrap_or_default();
        self.write(&binary.left, level + 1, out);
        out.push('\n');
        indent(level, out);
        out.push_str(operator.trim());
        out.push('\n');
        self.write(&binary.right, level + 1, out);
    }

    /// Adds what stands before the parentheses, and what is inside them, each part on lines of its own.
    fn write_list(&self, expr: &Expr, whole: &str, level: usize, out: &mut String) {
        let parts = expr.children();
        let inside: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
        let inside = format!("({})", inside.join(", "));
        indent(level, out);
        out.push_str(whole.strip_suffix(inside.as_str()).unwrap_or_default());
        out.push('(');
        for (at, part) in parts.into_iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            self.write(part, level + 1, out);
        }
        out.push('\n');
        indent(level, out);
        out.push(')');
    }
}

fn indent(level: usize, out: &mut String) {
    out.push_str(&INDENT.repeat(level));
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// Queries and how Prometheus breaks them where a line has ten bytes; the empty text stands for "as written".
    const BROKEN: &[(&str, &str)] = &[
        ("sum(up)", ""),
        ("sum by () (job:errors:rate{a=\"b\"})", "sum(\n  job:errors:rate{a=\"b\"}\n)"),
        ("sum(job:errors:rate{a=\"b\"}) without(x,y)", "sum without (x, y) (\n  job:errors:rate{a=\"b\"}\n)"),
        ("topk(10, requests{a=\"b\"})", "topk(\n  10,\n  requests{a=\"b\"}\n)"),
        ("max by(x) # a comment\n(sum by(x,y) (requests))", "max by (x) (\n  sum by (x, y) (\n    requests\n  )\n)"),
        ("a + b", ""),
        ("a == bool 1", "  a\n== bool\n  1"),
        ("a + ignoring(x) b", "  a\n+ ignoring (x)\n  b"),
        ("one_1 + one_2", "  one_1\n+\n  one_2"),
        ("one_1 + one_2 + one_3", "    one_1\n  +\n    one_2\n+\n  one_3"),
        ("one + four + six_6", "  one + four\n+\n  six_6"),
        (
            "a_1 / on(x) group_left(y) a_2 * ignoring(z) group_right a_3",
            "    a_1\n  / on (x) group_left (y)\n    a_2\n* ignoring (z) group_right ()\n  a_3",
        ),
        ("rate(up[1m])", "rate(\n  up[1m]\n)"),
        ("rate(up[2*1h])", "rate(\n  up[2 * 1h]\n)"),
        ("histogram_quantile(0.9, rate(up[1m]))", "histogram_quantile(\n  0.9,\n  rate(\n    up[1m]\n  )\n)"),
        (
            "max_over_time(rate(requests[1m])[1m:] @ start() offset 1m)",
            "max_over_time(\n  rate(\n    requests[1m]\n  )[1m:] @ start() offset 1m\n)",
        ),
        ("rate(up[5m:]) + rate(requests[5m:1m])", "  rate(\nup[5m:]\n  )\n+\n  rate(\n    requests[5m:1m]\n  )"),
        (
            "label_replace(up, \"a\", \"$1\", \"b\", \"(.*):.*\")",
            "label_replace(\n  up,\n  \"a\",\n  \"$1\",\n  \"b\",\n  \"(.*):.*\"\n)",
        ),
        ("(1 + 2)", ""),
        ("(requests_)", "(\n  requests_\n)"),
        ("((requests))", "(\n  (requests)\n)"),
        (
            "((requests + latency) + errors_)",
            "(\n    (\n        requests\n      +\n        latency\n    )\n  +\n    errors_\n)",
        ),
        ("requests_total @ start()", ""),
        ("-requests_total", ""),
        ("(-requests_total)", "(\n  -requests_total\n)"),
        ("-rate(up[1m] @ end())", "-rate(\n  up[1m] @ end()\n)"),
        ("-one_1 ^ one_2", "-one_1\n^\n  one_2"),
    ];

    #[test]
    fn what_is_long_is_broken_as_prometheus_breaks_it() {
        for (text, expected) in BROKEN {
            let tree = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let broken = Breaker { line_bytes: 10 }.text(&tree);
            assert_eq!(&broken, if expected.is_empty() { text } else { expected });
            let again = parse(&broken).unwrap_or_else(|error| panic!("{broken}: {error}"));
            assert_eq!(again.to_string(), tree.to_string(), "{text}");
        }
    }

    #[test]
    fn a_line_has_a_hundred_bytes() {
        let told = |letters: usize| parse(&format!("sum({})", "a".repeat(letters))).map(|tree| pretty(&tree));
        assert_eq!(told(95), Ok(format!("sum({})", "a".repeat(95))));
        assert_eq!(told(96), Ok(format!("sum(\n  {}\n)", "a".repeat(96))));
    }
}
