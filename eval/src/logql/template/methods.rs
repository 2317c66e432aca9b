//! Methods of times, of months and of days of the week.

use chrono::{Datelike, Timelike};

use super::text::lossy;
use super::time::Moment;
use super::value::{IntType, Value};

/// What the method gives.
///
/// # Errors
/// The value has no such method, or the arguments are not right for it.
pub(super) fn call_method(value: &Value<'_>, name: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, String> {
    match value {
        Value::Moment(moment) => of_moment(moment, name, arguments),
        Value::Int(number, kind @ (IntType::Month | IntType::Weekday)) if name == "String" && arguments.is_empty() => {
            Ok(Value::text(kind.name_of(*number).unwrap_or_default()))
        }
        other => Err(format!("can't evaluate field {name} in type {}", other.go_type())),
    }
}

fn of_moment(moment: &Moment, name: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, String> {
    let local = moment.local();
    Ok(match (name, arguments) {
        ("Unix", []) => Value::int64(moment.seconds()),
        ("UnixMilli", []) => Value::int64(moment.milliseconds()),
        ("UnixMicro", []) => Value::int64(moment.microseconds()),
        ("UnixNano", []) => Value::int64(moment.nanoseconds()),
        ("Year", []) => Value::int(i64::from(local.year())),
        ("Month", []) => Value::Int(i64::from(local.month()), IntType::Month),
        ("Day", []) => Value::int(i64::from(local.day())),
        ("Hour", []) => Value::int(i64::from(local.hour())),
        ("Minute", []) => Value::int(i64::from(local.minute())),
        ("Second", []) => Value::int(i64::from(local.second())),
        ("Nanosecond", []) => Value::int(i64::from(local.nanosecond() % 1_000_000_000)),
        ("YearDay", []) => Value::int(i64::from(local.ordinal())),
        ("Weekday", []) => Value::Int(i64::from(local.weekday().num_days_from_sunday()), IntType::Weekday),
        ("UTC" | "Local", []) => Value::Moment(moment.utc()),
        ("Format", [Value::Text(layout)]) => Value::text(moment.format(&lossy(layout))),
        ("String", []) => Value::text(moment.text()),
        ("IsZero", []) => Value::Bool(moment.is_zero()),
        ("After", [Value::Moment(other)]) => Value::Bool(moment.order(other).is_gt()),
        ("Before", [Value::Moment(other)]) => Value::Bool(moment.order(other).is_lt()),
        ("Equal", [Value::Moment(other)]) => Value::Bool(moment.order(other).is_eq()),
        _ => return Err(refusal(name, arguments)),
    })
}

/// Why a time does not answer.
fn refusal(name: &str, arguments: &[Value<'_>]) -> String {
    let wanted = match name {
        "Format" | "After" | "Before" | "Equal" => 1,
        "Unix" | "UnixMilli" | "UnixMicro" | "UnixNano" | "Year" | "Month" | "Day" | "Hour" | "Minute" | "Second"
        | "Nanosecond" | "YearDay" | "Weekday" | "UTC" | "Local" | "String" | "IsZero" => 0,
        _ => return format!("can't evaluate field {name} in type time.Time"),
    };
    match arguments.first() {
        Some(argument) if arguments.len() == wanted => {
            let expected = if name == "Format" { "string" } else { "time.Time" };
            format!("wrong argument of {name}: expected {expected}; found {}", lossy(&argument.to_text()))
        }
        _ => format!("wrong number of args for {name}: want {wanted} got {}", arguments.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_times() {
        let moment = Value::Moment(Moment::of_ns(1_748_742_756_467_597_249));
        let call = |name: &str| call_method(&moment, name, &[]).map(|value| lossy(&value.to_text()));
        let cases = [
            ("Unix", "1748742756"),
            ("UnixMilli", "1748742756467"),
            ("UnixMicro", "1748742756467597"),
            ("UnixNano", "1748742756467597249"),
            ("Year", "2025"),
            ("Month", "June"),
            ("Day", "1"),
            ("Hour", "1"),
            ("Minute", "52"),
            ("Second", "36"),
            ("Nanosecond", "467597249"),
            ("YearDay", "152"),
            ("Weekday", "Sunday"),
            ("UTC", "2025-06-01 01:52:36.467597249 +0000 UTC"),
            ("Local", "2025-06-01 01:52:36.467597249 +0000 UTC"),
            ("String", "2025-06-01 01:52:36.467597249 +0000 UTC"),
            ("IsZero", "false"),
        ];
        for (name, expected) in cases {
            assert_eq!(call(name).as_deref(), Ok(expected), "{name}");
        }
        for (name, why) in [
            ("Format", "wrong number of args for Format: want 1 got 0"),
            ("Nope", "can't evaluate field Nope in type time.Time"),
        ] {
            assert_eq!(call(name), Err(why.to_owned()));
        }
        let zero = Value::Moment(Moment::zero());
        assert!(call_method(&zero, "IsZero", &[]).is_ok_and(|value| value.is_true()));
        assert!(call_method(&moment, "After", std::slice::from_ref(&zero)).is_ok_and(|value| value.is_true()));
        assert!(call_method(&moment, "Year", &[Value::int(3)]).is_err_and(|why| why.ends_with("want 0 got 1")));
        assert!(call_method(&moment, "Format", &[Value::int(3)]).is_err_and(|why| why.contains("expected string")));
        assert!(call_method(&Value::int(3), "Foo", &[]).is_err_and(|why| why.ends_with("in type int")));
    }
}
