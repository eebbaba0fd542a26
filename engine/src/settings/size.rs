//! Numbers of bytes as settings.

use std::fmt;
use std::str::FromStr;

use data::ByteSize;
use serde::{Deserialize, Serialize};

/// A number of bytes that is written as people write it, in files too: `200GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub ByteSize);

impl Size {
    /// So many thousand million bytes.
    pub const fn gigabytes(number: u64) -> Self {
        Size(ByteSize(number * 1_000_000_000))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded where that is not the same number.
        let text = self.0.to_string();
        match text.parse::<ByteSize>() {
            Ok(same) if same == self.0 => f.write_str(&text),
            _ => write!(f, "{}", self.0.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Size)
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_number() {
        for (text, written) in [("200GB", "200GB"), ("1.5 TB", "1500000000000"), ("77", "77B")] {
            let size: Size = text.parse().unwrap();
            assert_eq!(written.parse::<Size>().unwrap(), size, "{text}");
            assert_eq!(String::from(size).parse::<Size>().unwrap(), size, "{text}");
        }
        assert_eq!(Size::gigabytes(100).to_string(), "100GB");
    }
}
