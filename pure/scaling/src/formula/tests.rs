//! Formulas: the ones of public examples, the way operators bind, and what is refused.

use super::*;

fn evaluate(text: &str, values: &[(&str, Option<f64>)]) -> Result<Option<f64>, FormulaError> {
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    Formula::parse(text, &names)?
        .evaluate(&|name| values.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value))
}

#[test]
fn formulas_of_the_documentation() {
    let values = &[("trig_one", Some(3.0)), ("trig_two", Some(1.0)), ("failing", None)];
    for (text, expected) in [
        ("(trig_one + trig_two)/2", Some(2.0)),
        ("trig_one > 2 ? trig_one + trig_two : 1", Some(4.0)),
        ("count([trig_one,trig_two],{#>1}) > 1 ? 5 : 0", Some(0.0)),
        ("count([trig_one,trig_two],{# >= 1}) > 1 ? 5 : 0", Some(5.0)),
        ("failing ?? trig_one", Some(3.0)),
        ("failing ?? nil", None),
        ("float(max(trig_one, trig_two)) * 2", Some(6.0)),
        ("sum([trig_one, trig_two], {# * 2})", Some(8.0)),
        ("mean([trig_one, trig_two, 5])", Some(3.0)),
        ("all([trig_one, trig_two], {# > 0}) and not (trig_two > 1) ? 7 : 8", Some(7.0)),
    ] {
        assert_eq!(evaluate(text, values), Ok(expected), "{text}");
    }
}

#[test]
fn operators_bind_as_in_expr() {
    for (text, expected) in [
        ("1 + 2 * 3", 7.0),
        ("2 ** 3 ** 2", 512.0),
        ("-2 ** 2", -4.0),
        ("7 % 4 * 2", 6.0),
        ("nil ?? 1 + 1", 2.0),
        ("10 - 3 - 2", 5.0),
        ("1 < 2 == true ? 1 : 0", 1.0),
        ("true ? false ? 1 : 2 : 3", 2.0),
        ("1e3 / 4", 250.0),
        ("2 in [1, 2] ? 1 : 0", 1.0),
        ("median([4, 1, 3])", 3.0),
        ("len(filter([1, 2, 3], {# > 1}))", 2.0),
    ] {
        assert_eq!(evaluate(text, &[]), Ok(Some(expected)), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, offset, part) in [
        ("trig + other", 7, "no trigger's name"),
        ("1 +", 3, "ends where a value is expected"),
        ("sqrt(4)", 0, "unknown function sqrt"),
        ("(1", 2, "expected )"),
        ("1 2", 2, "expected an operator"),
        ("'a'", 0, "not used"),
        ("trig > 1", 5, "write condition ? 1 : 0"),
        ("nil + 1", 0, "found nil"),
        ("1 / 0", 4, "divides by 0"),
        ("{1}", 0, "second argument"),
        ("count([1], 2)", 0, "takes a list"),
        ("#", 0, "expected a value"),
    ] {
        let error = evaluate(text, &[("trig", Some(1.0))]).expect_err(text);
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

#[test]
fn length_depth_and_steps_are_bounded() {
    assert!(evaluate(&"(".repeat(2000), &[]).is_err());
    assert!(evaluate(&"-".repeat(4000), &[]).is_err());
    assert!(evaluate(&"1+".repeat(4000), &[]).is_err());
    let list = format!("[{}]", "1,".repeat(90));
    let nested = format!("count({list}, {{count({list}, {{count({list}, {{# > 0}}) > 0}}) > 0}}) > 0 ? 1 : 0");
    assert!(evaluate(&nested, &[]).expect_err("729000 steps").message.contains("steps"));
}
