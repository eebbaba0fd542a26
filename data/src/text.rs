//! Text files that people and their programs write: one entry a line, in any usual encoding.

use std::path::Path;

use crate::{Error, Result};

/// How a text begins that says how it is encoded, and how that is called.
const MARKS: [(&[u8], Encoding); 5] = [
    (b"\xef\xbb\xbf", Encoding::Utf8),
    // Before UTF-16's, which they begin with.
    (b"\xff\xfe\0\0", Encoding::Utf32),
    (b"\0\0\xfe\xff", Encoding::Utf32),
    (b"\xff\xfe", Encoding::Utf16(u16::from_le_bytes)),
    (b"\xfe\xff", Encoding::Utf16(u16::from_be_bytes)),
];

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    Utf16(fn([u8; 2]) -> u16),
    Utf32,
}

/// The lines of the text file `bytes` with their numbers, without the spaces at their ends; empty
/// ones are left out.
///
/// UTF-8 and UTF-16 are told by their byte order mark. A text without one is taken as it is, in
/// UTF-8 or whatever the names on the disk are in. Lines end as on Linux, Windows or an old Mac.
///
/// # Errors
/// [`Error::Data`], which names `path`: UTF-16 without a mark or with half a letter, UTF-32, or
/// what is no text.
pub fn lines(path: &Path, bytes: Vec<u8>) -> Result<Vec<(usize, Vec<u8>)>> {
    let text =
        decoded(bytes).map_err(|problem| Error::Data(format!("{}: {problem}", path.display())))?;
    let end = if text.contains(&b'\n') { b'\n' } else { b'\r' };
    let lines = text.split(|&byte| byte == end).map(<[u8]>::trim_ascii);
    let numbered = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    Ok(numbered.map(|(number, line)| (number, line.to_vec())).collect())
}

/// The text without its mark; what is wrong with it if it can't be read.
fn decoded(mut bytes: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
    const SAVE: &str = "save it as UTF-8";
    let mark = MARKS.iter().find(|(mark, _)| bytes.starts_with(mark));
    match mark {
        Some((mark, Encoding::Utf8)) => {
            bytes.drain(..mark.len());
        }
        Some((_, Encoding::Utf32)) => return Err(format!("a text in UTF-32; {SAVE}")),
        Some((mark, Encoding::Utf16(number))) => {
            let (pairs, rest) = bytes[mark.len()..].as_chunks::<2>();
            if !rest.is_empty() {
                return Err("a text in UTF-16 that ends within a letter; fetch it again".into());
            }
            let letters = char::decode_utf16(pairs.iter().map(|&pair| number(pair)));
            let text: std::result::Result<String, _> = letters.collect();
            bytes = text
                .map_err(|half| format!("a text in UTF-16 with half a letter ({half}); {SAVE}"))?
                .into_bytes();
        }
        None if looks_like_utf16(&bytes) => {
            return Err(format!("a text in UTF-16 without a byte order mark; {SAVE}"));
        }
        None => {}
    }
    if bytes.contains(&0) { Err("no text: it has zero bytes".into()) } else { Ok(bytes) }
}

/// Whether every second byte is zero, as of letters up to U+00FF in UTF-16.
fn looks_like_utf16(bytes: &[u8]) -> bool {
    let zeros = |first: usize| bytes.iter().skip(first).step_by(2).filter(|&&b| b == 0).count();
    let (high, low) = (zeros(0), zeros(1));
    let (most, least) = (high.max(low), high.min(low));
    bytes.len() >= 4 && least == 0 && most > bytes.len() / 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
        let lines = lines(Path::new("l.txt"), bytes.to_vec()).map_err(|e| e.to_string())?;
        let shown = |(number, line): (usize, Vec<u8>)| {
            format!("{number}:{}", String::from_utf8_lossy(&line))
        };
        Ok(lines.into_iter().map(shown).collect())
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn what_editors_save_is_read() {
        let text = "# é\r\n\r\n a.png \r\n猫/b.png\r\n";
        let expected = ["1:# é", "3:a.png", "4:猫/b.png"];
        let marked = format!("\u{feff}{text}");
        let encoded = [
            text.as_bytes().to_vec(),
            marked.as_bytes().to_vec(),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
            text.replace("\r\n", "\n").into_bytes(),
            text.replace("\r\n", "\r").into_bytes(),
            text.trim_end().as_bytes().to_vec(),
        ];
        for bytes in encoded {
            assert_eq!(read(&bytes).unwrap(), expected, "{bytes:?}");
        }
        assert_eq!(read(b"caf\xe9.png\n").unwrap(), ["1:caf\u{fffd}.png"]);
        assert_eq!(read(b"").unwrap(), [""; 0]);
        assert_eq!(read(b"\xef\xbb\xbf").unwrap(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let cases: [(Vec<u8>, &str); 6] = [
            (utf16("a.png\n", u16::to_le_bytes), "l.txt: a text in UTF-16 without a byte order"),
            (utf16("a.png\n", u16::to_be_bytes), "UTF-16 without a byte order mark; save it as"),
            (b"\xff\xfea\0.".to_vec(), "ends within a letter"),
            (b"\xff\xfe\x00\xd8a\0".to_vec(), "half a letter"),
            (b"\xff\xfe\0\0a\0\0\0".to_vec(), "UTF-32"),
            (b"a.png\n\0\0\x07".to_vec(), "no text"),
        ];
        for (bytes, problem) in cases {
            let message = read(&bytes).unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = bytes.len();
            if let Ok(lines) = lines(Path::new("l"), bytes) {
                // UTF-16 grows to three bytes for two.
                let total: usize = lines.iter().map(|(_, line)| line.len()).sum();
                prop_assert!(total <= length * 3 / 2 && lines.len() <= length);
            }
        }
    }
}
