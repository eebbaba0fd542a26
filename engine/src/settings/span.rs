//! Two numbers, smallest and largest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// From the smallest to the largest value of something that is drawn; `0.67,1` as a flag,
/// `[0.67, 1.0]` in a file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Span {
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Span {
    /// From `low` to `high`.
    pub const fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }
}

impl From<[f64; 2]> for Span {
    fn from([low, high]: [f64; 2]) -> Self {
        Self { low, high }
    }
}

impl From<Span> for [f64; 2] {
    fn from(span: Span) -> Self {
        [span.low, span.high]
    }
}

impl From<Span> for (f64, f64) {
    fn from(span: Span) -> Self {
        (span.low, span.high)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.low, self.high)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once(',')
            .and_then(|(low, high)| {
                Some(Self { low: low.trim().parse().ok()?, high: high.trim().parse().ok()? })
            })
            .ok_or_else(|| format!("{text:?} is not two numbers like 0.67,1"))
    }
}
