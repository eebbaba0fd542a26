//! Numbers and flags as people's files have them.

use serde_json::Value;

use super::text::abbreviated;

/// A field that cannot be used: its name, its value, the rule. A clause for a message.
pub(crate) fn broken(field: &str, value: Option<&str>, rule: &str) -> String {
    match value {
        Some(value) => format!("{field} is {}, but it must be {rule}", abbreviated(value)),
        None => format!("{field} is missing, but it must be {rule}"),
    }
}

/// A finite number, and whether it was written as a text.
pub(crate) fn number(json: &str) -> Option<(f64, bool)> {
    of_value(&serde_json::from_str(json).ok()?)
}

fn of_value(value: &Value) -> Option<(f64, bool)> {
    let (number, text) = match value {
        Value::Number(number) => (number.as_f64()?, false),
        Value::String(text) => (text.trim().parse().ok()?, true),
        _ => return None,
    };
    number.is_finite().then_some((number, text))
}

/// Finite numbers, and whether one was written as a text.
pub(crate) fn numbers(value: &Value) -> Option<(Vec<f64>, bool)> {
    let numbers: Option<Vec<_>> = value.as_array()?.iter().map(of_value).collect();
    let (numbers, texts): (Vec<f64>, Vec<bool>) = numbers?.into_iter().unzip();
    Some((numbers, texts.contains(&true)))
}

/// x, y, width and height, and whether one was written as a text.
pub(crate) fn bbox(json: &str) -> Option<([f64; 4], bool)> {
    let (numbers, text) = numbers(&serde_json::from_str(json).ok()?)?;
    Some((numbers.try_into().ok()?, text))
}

/// A whole number from 0 on that fits 32 bits.
pub(crate) fn whole(number: f64) -> Option<u32> {
    let whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    whole.then_some(number as u32)
}

/// A flag: a boolean, a whole number, or either as a text.
pub(crate) fn flag(json: &str) -> Option<bool> {
    match serde_json::from_str::<Value>(json).ok()? {
        Value::Bool(flag) => Some(flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        value => {
            let (number, _) = of_value(&value)?;
            (number.fract() == 0.0).then_some(number != 0.0)
        }
    }
}
