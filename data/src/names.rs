//! Names of files and folders as text: on Linux they are bytes, and not all of them are UTF-8.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use unicode_normalization::UnicodeNormalization;

/// `name` as text that can be shown, stored as JSON and told from every other name's.
///
/// A byte that is no part of UTF-8 is written `\xNN`, as Python's `backslashreplace` writes it; so
/// is the backslash of a name that has such an escape in it by itself, as `\x5c`. All other names
/// are themselves.
pub fn readable(name: impl AsRef<OsStr>) -> String {
    readable_bytes(name.as_ref().as_bytes())
}

/// As [`readable`], of the bytes of a name.
pub(crate) fn readable_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        for (at, letter) in valid.char_indices() {
            match is_escape(&valid.as_bytes()[at..]) {
                true => text.push_str("\\x5c"),
                false => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether an escape of [`readable`] begins here.
fn is_escape(bytes: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    matches!(bytes, [b'\\', b'x', high, low, ..] if is_digit(high) && is_digit(low))
}

/// What Python sorts file names by: their code points, where a byte that is no part of UTF-8 is a
/// surrogate (PEP 383).
pub(crate) fn python_order(name: impl AsRef<OsStr>) -> Vec<u32> {
    let chunks = name.as_ref().as_bytes().utf8_chunks();
    let points = chunks.flat_map(|chunk| {
        let escaped = chunk.invalid().iter().map(|&byte| 0xdc00 + u32::from(byte));
        chunk.valid().chars().map(u32::from).chain(escaped)
    });
    points.collect()
}

/// `name` in quotes, so that spaces at its ends are seen, on one line.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", one_line(name))
}

/// The first `letters` of `text`, with an ellipsis if there are more.
pub fn abbreviated(text: &str, letters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(letters) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// `name` without tabs and ends of lines, which file names may have: for lists of such.
pub fn one_line(name: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    name.chars().map(shown).collect()
}

/// `name` in Unicode's composed normal form (NFC): what a Mac writes as a letter and an accent is
/// then what others write as one letter.
pub fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// The number of `names` and the first of them, as a person is told.
pub fn first_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let shown: Vec<&str> = names.take(4).collect();
    let more = if count > shown.len() { ", …" } else { "" };
    format!("{count}: {}{more}", shown.join(", "))
}

/// Whether these are the same names in the same order, whatever their Unicode normal form.
pub fn same_names(some: &[String], others: &[String]) -> bool {
    let same = |(a, b): (&String, &String)| a == b || composed(a) == composed(b);
    some.len() == others.len() && some.iter().zip(others).all(same)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    /// What [`readable`] was made of.
    fn bytes_of(text: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((&first, after)) = rest.split_first() {
            if is_escape(rest) {
                bytes.push(
                    u8::from_str_radix(&text[text.len() - rest.len() + 2..][..2], 16).unwrap(),
                );
                rest = &rest[4..];
            } else {
                bytes.push(first);
                rest = after;
            }
        }
        bytes
    }

    #[test]
    fn names_are_written_as_python_writes_them() {
        // b"…".decode("utf-8", "backslashreplace")
        let cases: [(&[u8], &str); 7] = [
            ("naïve 猫".as_bytes(), "naïve 猫"),
            (b"caf\xe9", "caf\\xe9"),
            (b"\xb3\xc8\xd7\xd3", "\\xb3\\xc8\\xd7\\xd3"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
            (b"a\xe2\x82z", "a\\xe2\\x82z"),
            (b"a\\xq", "a\\xq"),
            // Not as Python: the name of four letters is told from that of one byte.
            (b"\\xe9", "\\x5cxe9"),
        ];
        for (bytes, text) in cases {
            assert_eq!(readable(OsStr::from_bytes(bytes)), text);
        }
    }

    proptest! {
        #[test]
        fn every_name_can_be_told_from_every_other(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'5'), Just(b'c')], 0..12),
        ) {
            let name = OsString::from_vec(bytes.clone());
            prop_assert_eq!(bytes_of(&readable(&name)), bytes);
        }
    }

    #[test]
    fn normal_forms_are_the_same_names() {
        let of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(same_names(&of(&["caf\u{e9}", "b"]), &of(&["cafe\u{301}", "b"])));
        assert!(!same_names(&of(&["a", "b"]), &of(&["b", "a"])));
        assert!(!same_names(&of(&["a", "b"]), &of(&["a"])));
        assert_eq!(quoted("cat \n"), "\"cat \\n\"");
    }
}
