//! Numbers of bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes; `200GB` as a flag and in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// Units, largest first. Those of a thousand are what disks and stores are sold by.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many thousand million bytes.
    pub const fn gigabytes(number: u64) -> Self {
        ByteSize(number * 1_000_000_000)
    }

    /// So many million bytes.
    pub const fn megabytes(number: u64) -> Self {
        ByteSize(number * 1_000_000)
    }

    /// As a number.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (name, unit) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a number of bytes like 200GB or 512MB");
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, name) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let name = name.trim();
        let unit = UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name));
        // A bare number of bytes is more likely a unit forgotten.
        let (_, unit) = unit.ok_or_else(refused)?;
        let number: f64 = number.parse().map_err(|_| refused())?;
        let bytes = number * *unit as f64;
        if !(bytes >= 1.0 && bytes < (1u64 << 62) as f64) {
            return Err(refused());
        }
        Ok(ByteSize(bytes as u64))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("200GB", 200_000_000_000, "200GB"),
            ("1.5 tb", 1_500_000_000_000, "1500GB"),
            ("512MiB", 512 << 20, "512MiB"),
            ("1000B", 1000, "1KB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, written));
            assert_eq!(written.parse::<ByteSize>().unwrap(), size);
        }
        for text in ["", "200", "GB", "-1GB", "0GB", "1e3GB", "1.2.3GB", "9999999TB"] {
            assert!(text.parse::<ByteSize>().unwrap_err().contains("like 200GB"), "{text}");
        }
    }
}
