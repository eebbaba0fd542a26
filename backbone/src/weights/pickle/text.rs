//! What protocol 0 writes as text.

use super::parse::Node;

type Outcome<T> = std::result::Result<T, String>;

/// `I01` and `I00` are the booleans.
pub(super) fn integer<'a>(line: &str) -> Outcome<Node<'a>> {
    let digits = line.strip_prefix('-').unwrap_or(line);
    match line {
        "00" => Ok(Node::Bool(false)),
        "01" => Ok(Node::Bool(true)),
        _ if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err("a number that is none".into())
        }
        _ => Ok(line.parse().map_or(Node::Huge, Node::Int)),
    }
}

pub(super) fn float<'a>(line: &str) -> Outcome<Node<'a>> {
    line.parse().map(Node::Float).map_err(|_| "a number that is none".into())
}

/// A number that a value is stored under.
pub(super) fn memo_key(line: &str) -> Outcome<u32> {
    line.parse().map_err(|_| "a value stored under no number".into())
}

/// A Python 2 `str` as `repr` writes it: quoted, with escapes.
pub(super) fn string<'a>(line: &[u8]) -> Outcome<Node<'a>> {
    let quoted = [b"'", b"\""]
        .iter()
        .find_map(|&quote| line.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)));
    let mut rest = quoted.ok_or("a string without quotes")?.iter().copied();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().ok_or("an escape without end")? {
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'r' => bytes.push(b'\r'),
            b'x' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.map(char::from));
                let [Some(high), Some(low)] =
                    digits.map(|digit| digit.and_then(|d| d.to_digit(16)))
                else {
                    return Err("an escape that is none".into());
                };
                bytes.push((high << 4 | low) as u8);
            }
            other => bytes.push(other),
        }
    }
    Ok(Node::Bytes(bytes.into()))
}

/// Python's `raw-unicode-escape`: Latin-1, `\uXXXX` and `\UXXXXXXXX`, nothing else.
pub(super) fn unicode<'a>(line: &[u8]) -> Outcome<Node<'a>> {
    let line: String = line.iter().copied().map(char::from).collect();
    let mut text = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text += before;
        let length = match escape.as_bytes().get(1) {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => 0,
        };
        let code = escape.get(2..2 + length).filter(|_| length > 0);
        match code.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = &escape[2 + length..];
            }
            None => {
                text.push('\\');
                rest = &escape[1..];
            }
        }
    }
    Ok(Node::Text((text + rest).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values and what Python 3's `pickle.loads` makes of them.
    #[test]
    fn numbers_and_text() {
        let bytes = |line: &str| match string(line.as_bytes()) {
            Ok(Node::Bytes(bytes)) => Some(bytes.into_owned()),
            _ => None,
        };
        assert_eq!(bytes(r"'a\x00\n\'\\'"), Some(b"a\x00\n'\\".to_vec()));
        assert_eq!(bytes("\"b\""), Some(b"b".to_vec()));
        assert_eq!(bytes(r"'\x0'"), None);
        assert_eq!(bytes("'"), None);
        let text = |line: &str| match unicode(line.as_bytes()) {
            Ok(Node::Text(text)) => text.into_owned(),
            _ => String::new(),
        };
        assert!(matches!(unicode(b"\xfc"), Ok(Node::Text(text)) if text == "ü"));
        assert_eq!(text(r"\u00fc\U0001f600 \x \"), "ü😀 \\x \\");
        assert!(matches!(integer("01"), Ok(Node::Bool(true))));
        assert!(matches!(integer("-7"), Ok(Node::Int(-7))));
        assert!(matches!(integer("119547037146038801333356"), Ok(Node::Huge)));
        assert!(integer("+1").is_err() && integer("").is_err());
    }
}
