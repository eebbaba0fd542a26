//! Weights must be numbers: a model with a NaN or an infinity computes nothing.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::dtype::is_float;
use super::report::some_of;
use crate::{Error, Result};

/// The tensors with values that are not finite, each as a phrase:
/// `bn1.running_var (64 of 64 values NaN)`.
///
/// # Errors
/// [`Error::Torch`] for tensors that cannot be looked into.
pub fn not_finite<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<String>> {
    let mut phrases = Vec::new();
    for (name, tensor) in tensors {
        if !is_float(tensor.f_kind()?) || tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0 {
            continue;
        }
        let count =
            |which: Tensor| -> Result<i64> { Ok(which.f_sum(Kind::Int64)?.f_int64_value(&[])?) };
        let (nan, infinite) = (count(tensor.f_isnan()?)?, count(tensor.f_isinf()?)?);
        let what = match (nan, infinite) {
            (nan, 0) => format!("{nan} of {} values NaN", tensor.numel()),
            (0, infinite) => format!("{infinite} of {} values infinite", tensor.numel()),
            _ => format!("{nan} NaN and {infinite} infinite of {} values", tensor.numel()),
        };
        phrases.push(format!("{name} ({what})"));
    }
    Ok(phrases)
}

/// Refuses tensors with values that are not finite; `what` begins the sentence and
/// `rule` ends it.
///
/// # Errors
/// [`Error::Weights`] naming them.
pub fn check_finite(what: &str, tensors: &BTreeMap<String, Tensor>, rule: &str) -> Result<()> {
    let found = not_finite(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Weights(format!(
        "{what} has values that are not finite, {}: {rule}",
        some_of(&found)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_counted_by_kind() {
        let tensors = BTreeMap::from([
            ("fine".to_owned(), Tensor::from_slice(&[1f32, 0.0])),
            ("empty".to_owned(), Tensor::from_slice(&[0f32; 0])),
            ("counter".to_owned(), Tensor::from(3i64)),
            ("half".to_owned(), Tensor::from_slice(&[1f32, f32::NAN]).to_kind(Kind::Half)),
            ("wide".to_owned(), Tensor::from_slice(&[f64::NEG_INFINITY, f64::NAN, 1.0])),
            ("scalar".to_owned(), Tensor::from(f32::INFINITY)),
        ]);
        let message = check_finite("the model", &tensors, "stop").unwrap_err().to_string();
        assert_eq!(
            message,
            "the model has values that are not finite, half (1 of 2 values NaN), \
             scalar (1 of 1 values infinite), wide (1 NaN and 1 infinite of 3 values): stop"
        );
    }
}
