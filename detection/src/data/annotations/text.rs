//! From a file's bytes to JSON text, in whatever encoding programs write it.

use std::borrow::Cow;

use data::names;

/// What Python's `json` writes for numbers that JSON has no form for.
const NON_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The text of a JSON file: UTF-8 with or without a byte order mark, or UTF-16.
///
/// # Errors
/// What it is instead, as a clause.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<String, String> {
    match bytes[..] {
        [0x1f, 0x8b, ..] => Err("it is compressed with gzip: unpack it with gunzip".into()),
        [b'P', b'K', 3, 4, ..] => Err("it is a zip archive: unpack it".into()),
        [0xff, 0xfe, ..] => utf16(&bytes[2..], u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(&bytes[2..], u16::from_be_bytes),
        // JSON has no zero bytes: the first character's other half.
        [1..=255, 0, ..] => utf16(&bytes, u16::from_le_bytes),
        [0, 1..=255, ..] => utf16(&bytes, u16::from_be_bytes),
        _ => utf8(bytes),
    }
}

fn utf8(mut bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        format!("byte {at} (line {line}) is not UTF-8: save the file in that encoding")
    })?;
    if text.trim().is_empty() { Err("it is empty".into()) } else { Ok(text) }
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = String::from_utf16(&pairs.iter().map(|&pair| unit(pair)).collect::<Vec<_>>());
    match text {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => Err("it begins as UTF-16, but is not: save it as UTF-8".into()),
    }
}

/// `text` with each `NaN`, `Infinity` and `-Infinity` outside its strings in quotes, so that it
/// is JSON; none if there is none of them.
pub(crate) fn quote_non_finite(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut quoted = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'N' | b'I' | b'-' => {
                let token = NON_FINITE.iter().find(|token| text[at..].starts_with(**token));
                if let Some(token) = token {
                    quoted += &text[copied..at];
                    quoted += &format!("\"{token}\"");
                    copied = at + token.len();
                }
                at += token.map_or(1, |token| token.len());
            }
            _ => at += 1,
        }
    }
    (copied > 0).then(|| quoted + &text[copied..])
}

/// Behind the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A value of a record for a message, shortened; numbers that JSON does not have without the
/// quotes of [`quote_non_finite`].
pub(crate) fn abbreviated(json: &str) -> String {
    const LONGEST: usize = 60;
    let mut text: Cow<str> = json.into();
    for token in NON_FINITE {
        text = text.replace(&format!("\"{token}\""), token).into();
    }
    names::abbreviated(&text, LONGEST).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_unicode_is_read() {
        let text = "{\"a\": \"é\"}";
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        for bytes in [
            text.as_bytes().to_vec(),
            marked(b"\xef\xbb\xbf", text.as_bytes()),
            marked(b"\xff\xfe", &little),
            marked(b"\xfe\xff", &big),
            little,
            big,
        ] {
            assert_eq!(decode(bytes).as_deref(), Ok(text));
        }
    }

    #[test]
    fn other_files_are_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"\x1f\x8b\x08", "gzip"),
            (b"PK\x03\x04", "zip"),
            (b"\xff\xfe\x00\xd8", "begins as UTF-16"),
            (b"{\n\"\xe9\"}", "byte 3 (line 2) is not UTF-8"),
            (b"", "it is empty"),
            (b"\xef\xbb\xbf \n", "it is empty"),
        ];
        for (bytes, expected) in cases {
            let problem = decode(bytes.to_vec()).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn numbers_that_json_has_not_are_quoted_outside_strings_alone() {
        let text = r#"{"NaN": ["a\"NaN", NaN, -Infinity, Infinity, -1, "I"]}"#;
        let quoted = quote_non_finite(text).unwrap();
        assert_eq!(quoted, r#"{"NaN": ["a\"NaN", "NaN", "-Infinity", "Infinity", -1, "I"]}"#);
        assert_eq!(quote_non_finite(r#"{"a": [-1, "NaN", "\\"]}"#), None);
        assert_eq!(quote_non_finite("\"NaN\\"), None);
        assert_eq!(abbreviated(r#"[1, "NaN"]"#), "[1, NaN]");
        assert_eq!(abbreviated(&"é".repeat(70)).chars().count(), 61);
    }
}
