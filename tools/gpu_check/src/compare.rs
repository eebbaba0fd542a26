//! How far two outcomes are apart.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::outcome::Outcome;

/// A difference in proportion, and the tensor it was found in.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// In proportion to what is said where it is made.
    pub figure: f64,
    /// The tensor's name.
    pub worst: String,
}

impl Apart {
    /// The larger of two.
    pub fn or(self, other: Self) -> Self {
        // What is no number is the larger one.
        if other.figure.total_cmp(&self.figure).is_gt() { other } else { self }
    }

    /// None yet.
    pub fn none() -> Self {
        Self { figure: 0.0, worst: String::new() }
    }
}

/// Gradients that vanish exactly (biases that a batch norm takes out again) come out as rounding
/// noise this far below the largest gradient, and are compared on its scale.
const VANISHING: f64 = 1e-9;

/// The largest difference of any value, in proportion to the largest of its tensor, or to 1 where
/// that is smaller.
pub fn of_values(got: &Outcome, expected: &Outcome) -> Result<Apart> {
    check_names(got, expected)?;
    let largest_gradient = largest_of(expected, |name| name.starts_with("gradient"));
    let mut apart = Apart::none();
    for (name, expected) in expected {
        let own = largest(expected);
        let vanishes = name.starts_with("gradient") && own < VANISHING * largest_gradient;
        let scale = if vanishes { largest_gradient } else { own.max(1.0) };
        let got = &got[name];
        ensure!(
            got.size() == expected.size(),
            "{name} is of shape {:?}, but must be of {:?}",
            got.size(),
            expected.size()
        );
        let figure = largest(&(double(got) - double(expected))) / scale;
        apart = apart.or(Apart { figure, worst: name.clone() });
    }
    Ok(apart)
}

/// The length of the difference in proportion to that of what is expected, of all outputs together
/// and of all gradients together: the larger of the two. For networks so deep that single values
/// say nothing in few bits.
pub fn of_lengths(got: &Outcome, expected: &Outcome) -> Result<Apart> {
    check_names(got, expected)?;
    let of = |what: &str| {
        let mut squares = [0.0, 0.0];
        for (name, expected) in expected.iter().filter(|(name, _)| name.starts_with(what)) {
            let expected = double(expected);
            squares[0] += square(&(double(&got[name]) - &expected));
            squares[1] += square(&expected);
        }
        Apart { figure: (squares[0] / squares[1]).sqrt(), worst: format!("all {what}s") }
    };
    Ok(of("output").or(of("gradient")))
}

/// The differences' largest, of tensors by themselves.
pub fn of_tensors(got: &Tensor, expected: &Tensor, name: &str) -> Result<Apart> {
    let outcome = |tensor: &Tensor| Outcome::from([(name.to_owned(), tensor.detach())]);
    of_values(&outcome(got), &outcome(expected))
}

fn check_names(got: &Outcome, expected: &Outcome) -> Result<()> {
    let missing: Vec<&String> = expected.keys().filter(|name| !got.contains_key(*name)).collect();
    let more: Vec<&String> = got.keys().filter(|name| !expected.contains_key(*name)).collect();
    ensure!(
        missing.is_empty() && more.is_empty(),
        "tensors differ: {missing:?} are missing, {more:?} were not expected"
    );
    Ok(())
}

fn largest_of(outcome: &Outcome, wanted: impl Fn(&str) -> bool) -> f64 {
    let tensors = outcome.iter().filter(|(name, _)| wanted(name));
    tensors.map(|(_, tensor)| largest(tensor)).fold(0.0, f64::max)
}

/// The largest absolute value; not a number if one is none.
fn largest(tensor: &Tensor) -> f64 {
    if tensor.numel() == 0 {
        return 0.0;
    }
    double(tensor).abs().max().double_value(&[])
}

fn square(tensor: &Tensor) -> f64 {
    tensor.square().sum(Kind::Double).double_value(&[])
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.to_device(tch::Device::Cpu).to_kind(Kind::Double)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(output: &[f64], gradient: &[f64]) -> Outcome {
        let named = [("output 0", output), ("gradient of w", gradient)];
        named.map(|(name, values)| (name.to_owned(), Tensor::from_slice(values))).into()
    }

    #[test]
    fn single_values_and_lengths_are_told_apart() {
        let expected = outcome(&[10.0, 0.0], &[0.5, 0.5]);
        let got = outcome(&[10.0, 1.0], &[0.5, 0.5]);
        let values = of_values(&got, &expected).unwrap();
        assert_eq!((values.figure, values.worst.as_str()), (0.1, "output 0"));
        assert_eq!(of_lengths(&got, &expected).unwrap().figure, 0.1);
        assert_eq!(of_values(&expected, &expected).unwrap().figure, 0.0);
        // Values below 1 are compared on the scale of 1.
        let got = outcome(&[10.0, 0.0], &[0.5, 0.4]);
        assert!((of_values(&got, &expected).unwrap().figure - 0.1).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_number_or_missing_is_no_agreement() {
        let expected = outcome(&[1.0], &[1.0]);
        for apart in [of_values, of_lengths] {
            let got = outcome(&[f64::NAN], &[1.0]);
            assert!(apart(&got, &expected).unwrap().figure.is_nan());
            let mut got = outcome(&[1.0], &[1.0]);
            got.remove("output 0");
            let error = apart(&got, &expected).unwrap_err().to_string();
            assert!(error.contains("\"output 0\""), "{error}");
        }
    }

    #[test]
    fn gradients_that_vanish_are_compared_with_those_that_do_not() {
        let of = |bias: f64| {
            let mut outcome = outcome(&[1.0], &[1e6]);
            outcome.insert("gradient of bias".into(), Tensor::from_slice(&[bias]));
            outcome
        };
        assert!(of_values(&of(1e-5), &of(1e-6)).unwrap().figure < 1e-10);
    }
}
