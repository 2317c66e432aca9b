//! Queries read, printed, read again; and queries refused with their place.

use super::ast::{Expr, ExprKind, Length, LengthKind, Selector};
use super::*;
use crate::span::Span;

/// Each text with how it is printed; the empty text stands for "as written".
const GOOD: &[(&str, &str)] = &[
    ("1", ""),
    ("+Inf", ""),
    ("-inf", "-Inf"),
    ("nan", "NaN"),
    ("0x1F + 017", "31 + 15"),
    ("5m30s", ""),
    ("\"a\\nb\"", ""),
    ("`raw\\n`", "\"raw\\\\n\""),
    ("\"a\\xc5z\"", ""),
    ("up", ""),
    ("a:b:c", ""),
    ("sum", ""),
    ("offset", ""),
    ("start", ""),
    ("fill + fill_left", ""),
    ("up{job=\"a\",instance!~\"b.*\"}", "up{instance!~\"b.*\",job=\"a\"}"),
    ("{__name__=~\"a.+\"}", ""),
    ("{\"http.server.duration\"}", "{__name__=\"http.server.duration\"}"),
    ("{\"a.b\"=\"c\",}", "{\"a.b\"=\"c\"}"),
    ("up offset 5m", ""),
    ("up offset -5m", ""),
    ("up offset 0s", "up"),
    ("up @ 1.5", "up @ 1.500"),
    ("up @ -1 offset 1m", "up @ -1.000 offset 1m"),
    ("up offset 1m @ start()", "up @ start() offset 1m"),
    ("up[300]", "up[5m]"),
    ("up[5m] offset 90m @ end()", "up[5m] @ end() offset 1h30m"),
    ("up[5m] anchored", ""),
    ("up smoothed", ""),
    ("up[5m] smoothed @ 10.000 offset 1m", ""),
    ("rate(up[5m])[1h:]", ""),
    ("rate(up[5m])[1h:1m] @ 3.000 offset 2d", ""),
    ("up[step() + 1s]", ""),
    ("up[2 * (range() / 3)]", ""),
    ("up[min(step(), 1m) ^ 2]", ""),
    ("up offset (1h / 2)", ""),
    ("up offset -step()", ""),
    ("up offset -max(step(), 5m)", ""),
    ("up offset 1h + 2", ""),
    ("a[5m - 1m:-(-30s)]", ""),
    ("-up", ""),
    ("--up", ""),
    ("-1 ^ 2", ""),
    ("2 ^ -1 ^ 2", ""),
    ("-a * b", ""),
    ("a - b - c", ""),
    ("a ^ b ^ c", ""),
    ("a or b and c unless d", ""),
    ("a + b * c % d atan2 e / f", ""),
    ("a == bool b", ""),
    ("a </ 5 >/ 3", ""),
    ("a + on(x, y) group_left(z) b", "a + on (x, y) group_left (z) b"),
    ("a * ignoring () group_right b", "a * ignoring () group_right () b"),
    ("a / ignoring(x) b", "a / ignoring (x) b"),
    ("a and on() b", "a and on () b"),
    ("a + fill(0) b", "a + fill (0) b"),
    ("a - on(x) fill_right(-1) fill_left(2) b", "a - on (x) fill_left (2) fill_right (-1) b"),
    ("sum(a)", ""),
    ("SUM by(x)(a)", "sum by (x) (a)"),
    ("sum(a) without (x, \"y.z\",)", "sum without (x, \"y.z\") (a)"),
    ("sum by () (a)", "sum(a)"),
    ("topk(3, a)", ""),
    ("count_values by (on, by) (\"v\", a)", ""),
    ("limit_ratio(-0.5, a)", ""),
    ("round(a)", ""),
    ("label_join(a, \"d\", \",\", \"x\", \"y\")", ""),
    ("time() + pi()", ""),
    ("start() - end() + step() + range()", ""),
    ("info(a, {k=\"v\"})", ""),
    ("((a))", ""),
    ("a # a comment\n + b", "a + b"),
];

#[test]
fn what_is_printed_reads_as_the_same_tree() {
    for (text, printed) in GOOD {
        let tree = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let expected = if printed.is_empty() { text } else { printed };
        assert_eq!(tree.to_string(), *expected);
        let again = parse(&tree.to_string()).unwrap_or_else(|error| panic!("{tree}: {error}"));
        assert_eq!(without_spans(again), without_spans(tree), "{text}");
    }
}

#[test]
fn what_is_wrong_is_refused_at_its_place() {
    let bad = [
        ("", "1:1: no expression found in input"),
        ("1 +", "1:4: unexpected end of input; expected expression"),
        ("sum(a", "1:6: unexpected end of input in aggregation; expected `,`"),
        ("rate(up)", "1:6: expected type range vector in call to function \"rate\", got instant vector"),
        ("rate(up[5m], 1)", "1:1: expected 1 argument(s) in call to \"rate\", got 2"),
        ("label_join(a)", "1:1: expected at least 3 argument(s) in call to \"label_join\", got 1"),
        ("rat(up[5m])", "1:1: unknown function with name \"rat\""),
        ("Rate(up[5m])", "1:1: unknown function with name \"Rate\"; expected irate or rate"),
        ("1 == 1", "1:3: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: bool modifier can only be used on comparison operators"),
        ("a and 1", "1:1: set operator \"and\" not allowed in binary scalar expression"),
        ("a and on(x) group_left b", "1:1: no grouping allowed for \"and\" operation"),
        ("a + on(x) group_left(x) b", "1:3: label \"x\" must not occur in ON and GROUP clause at once"),
        ("a + on(x) 1", "1:1: vector matching only allowed between instant vectors"),
        ("a or fill(1) b", "1:1: filling in missing series not allowed for set operators"),
        ("{}", "1:1: vector selector must contain at least one non-empty matcher"),
        ("{a=~\".*\"}", "1:1: vector selector must contain at least one non-empty matcher"),
        ("a{__name__=\"b\"}", "1:1: metric name must not be set twice: \"a\" or \"b\""),
        ("a{b=~\"(\"}", "1:6: invalid regular expression \"(\": "),
        ("a{b}", "1:4: unexpected `}` in label matching; expected `=`, `!=`, `=~` or `!~`"),
        ("a[5m] offset 1m offset 1m", "1:1: offset may not be set multiple times"),
        ("(a)[5m]", "1:4: ranges only allowed for vector selectors"),
        ("a offset 1m [5m]", "1:13: no offset modifiers allowed before range"),
        ("a[0s]", "1:3: duration must be greater than 0"),
        ("a[5m", "1:5: unexpected end of input in subquery or range; expected `:` or `]`"),
        ("a[1m5h]", "1:3: not a valid duration: \"1m5h\""),
        ("1[5m:]", "1:1: subquery is only allowed on instant vector, got scalar instead"),
        ("a @ inf", "1:5: timestamp out of bounds for @ modifier: inf"),
        ("a @ 1 @ 2", "1:1: @ <timestamp> may not be set multiple times"),
        ("a[5m] anchored smoothed", "1:1: anchored and smoothed modifiers cannot be used together"),
        ("a[5m:] anchored", "1:1: anchored modifier is not supported for subqueries"),
        ("topk(a)", "1:1: wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("topk(\"x\", a)", "1:6: expected type scalar in aggregation parameter, got string"),
        (
            "-\"x\"",
            "1:1: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        ("\"a\" + 1", "1:1: binary expression must contain only scalar and instant vector types"),
        ("info(a, b)", "1:9: expected label selectors only, got vector selector instead"),
        ("on", "1:1: unexpected identifier `on`; expected expression"),
        ("a b", "1:3: unexpected identifier `b`; expected end of input"),
        ("sum(a,)", "1:6: trailing commas not allowed in function call args"),
        ("{a=\"\\xff\"}", "1:4: a string that is not UTF-8"),
    ];
    for (text, message) in bad {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.starts_with(message), "{text}: {error}");
    }
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(parse(&deep).expect_err("deep").message.contains("nest deeper"));
    let long = vec!["1"; 5000].join("+");
    assert!(parse(&long).expect_err("long").message.contains("operators in a row"));
}

#[test]
fn selectors_stand_alone() {
    assert_eq!(parse_selector("up{a=\"b\"}").map(|selector| selector.to_string()), Ok("up{a=\"b\"}".to_owned()));
    assert!(parse_selector("up[5m]").is_err());
    assert!(parse_selector("{a=~\".*\"}").is_err());
}

#[test]
fn durations_are_printed_shortly() {
    let day = 86_400_000;
    let cases =
        [(0, "0s"), (90 * day, "90d"), (14 * day, "2w"), (365 * day, "1y"), (5_400_000, "1h30m"), (-1500, "-1s500ms")];
    for (milliseconds, text) in cases {
        assert_eq!(format_duration(milliseconds), text);
    }
}

fn without_spans(mut expr: Expr) -> Expr {
    strip(&mut expr);
    expr
}

fn strip(expr: &mut Expr) {
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::Binary(binary) => binary.op_span = Span::default(),
        ExprKind::Vector(selector) => strip_selector(selector),
        ExprKind::Matrix(matrix) => {
            strip_selector(&mut matrix.selector);
            strip_length(&mut matrix.range);
        }
        ExprKind::Subquery(subquery) => {
            strip_length(&mut subquery.range);
            subquery.step.iter_mut().chain(&mut subquery.when.offset).for_each(strip_length);
        }
        _ => {}
    }
    expr.children_mut().into_iter().for_each(strip);
}

fn strip_selector(selector: &mut Selector) {
    selector.matchers.iter_mut().for_each(|matcher| matcher.span = Span::default());
    selector.when.offset.iter_mut().for_each(strip_length);
}

fn strip_length(length: &mut Length) {
    length.span = Span::default();
    match &mut length.kind {
        LengthKind::Unary { length, .. } | LengthKind::Paren(length) => strip_length(length),
        LengthKind::Binary { left, right, .. } | LengthKind::Extreme { left, right, .. } => {
            strip_length(left);
            strip_length(right);
        }
        _ => {}
    }
}
