//! Numbers of bytes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes: `256MB`, `1.5GB`, `64KiB`, or plain digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// Units with what they stand for, the longest of an ending first.
const UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let unit = UNITS.iter().find(|(name, _)| lower.ends_with(&name.to_ascii_lowercase()));
        let (number, unit) = match unit {
            Some((name, unit)) => (text[..text.len() - name.len()].trim_end(), *unit),
            None => (text, 1),
        };
        let is_number = number.starts_with(|c: char| c.is_ascii_digit());
        let bytes =
            match number.parse::<u64>() {
                Ok(number) => number.checked_mul(unit),
                // Below 2⁵³ of the unit a float is exact enough.
                Err(_) => number.parse::<f64>().ok().map(|number| number * unit as f64).and_then(
                    |bytes| (is_number && bytes < u64::MAX as f64).then_some(bytes.round() as u64),
                ),
            };
        bytes.map(ByteSize).ok_or_else(|| {
            "it must be a number of bytes such as 256MB, 1.5GB or 64MiB, below 16 exabytes".into()
        })
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit of a thousand that it has one of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match [("kB", 1), ("MB", 2), ("GB", 3), ("TB", 4), ("PB", 5), ("EB", 6)]
            .into_iter()
            .rev()
            .find_map(|(name, n)| {
                let unit = 1000u64.checked_pow(n)?;
                (bytes >= unit).then_some((name, unit))
            }) {
            Some((name, unit)) if bytes.is_multiple_of(unit) => write!(f, "{}{name}", bytes / unit),
            Some((name, unit)) => write!(f, "{:.1}{name}", bytes as f64 / unit as f64),
            None => write!(f, "{bytes}B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let read = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        for (text, bytes) in [
            ("256MB", 256_000_000),
            ("256 mb", 256_000_000),
            ("1.5G", 1_500_000_000),
            ("64KiB", 65_536),
            ("512B", 512),
            ("77", 77),
            ("16EB".trim_end_matches("EB"), 16),
        ] {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1MB", "1e999", "inf", "NaN", "20000000TB", "1 MB x", "12QB"] {
            assert!(read(text).is_err(), "{text}");
        }
        let shown = [0, 999, 256_000_000, 1_234_000, u64::MAX].map(|n| ByteSize(n).to_string());
        assert_eq!(shown, ["0B", "999B", "256MB", "1.2MB", "18.4EB"]);
    }
}
