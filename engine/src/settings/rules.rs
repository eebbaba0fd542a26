//! Rules that settings are held to.

use std::fmt::{Debug, Display};
use std::ops::RangeBounds;

use super::Span;
use crate::{Error, Result};

/// No less than `least`.
pub fn at_least<T: PartialOrd + Display>(least: T) -> impl Fn(&str, &T) -> Result<()> {
    move |name, value| match *value >= least {
        true => Ok(()),
        false => Err(Error::invalid(name, value, format!("it must be at least {least}"))),
    }
}

/// Inside `range`, which is written as [0, 1) in the message.
pub fn within<R: RangeBounds<f64>>(range: R, written: &str) -> impl Fn(&str, &f64) -> Result<()> {
    move |name, value| match range.contains(value) {
        true => Ok(()),
        false => Err(Error::invalid(name, value, format!("it must be in {written}"))),
    }
}

/// A share of a whole: 0 to 1.
pub fn share(name: &str, value: &f64) -> Result<()> {
    within(0.0..=1.0, "[0, 1]")(name, value)
}

/// 0 or more, and no infinity.
pub fn not_negative(name: &str, value: &f64) -> Result<()> {
    match *value >= 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid(name, value, "it must be in [0, ∞)")),
    }
}

/// A decay rate of averages: 0 or more and below 1.
pub fn decay_rate(name: &str, value: &f64) -> Result<()> {
    within(0.0..1.0, "[0, 1)")(name, value)
}

/// Above 0 and ascending, up to `most`.
pub fn ascending_to(most: f64) -> impl Fn(&str, &Span) -> Result<()> {
    move |name, span| {
        if span.low > 0.0 && span.low <= span.high && span.high <= most {
            return Ok(());
        }
        let limit = if most.is_finite() { format!(" to at most {most}") } else { String::new() };
        let value = format!("{}–{}", span.low, span.high);
        Err(Error::invalid(name, value, format!("it must ascend from above 0{limit}")))
    }
}

/// Above 0, each of them.
pub fn all_positive(name: &str, values: &Vec<f32>) -> Result<()> {
    match values.iter().all(|&value| value > 0.0) {
        true => Ok(()),
        false => Err(Error::invalid(name, Shown(values), "every value must be positive")),
    }
}

struct Shown<'a, T>(&'a T);

impl<T: Debug> Display for Shown<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Refuses a `part` that the `whole` is no multiple of.
///
/// # Errors
/// [`Error::Input`].
pub fn divides(part_name: &str, part: usize, whole_name: &str, whole: usize) -> Result<()> {
    match part > 0 && whole.is_multiple_of(part) {
        true => Ok(()),
        false => {
            Err(Error::invalid(part_name, part, format!("it must divide {whole_name} {whole}")))
        }
    }
}
