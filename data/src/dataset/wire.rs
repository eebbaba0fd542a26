//! Numbers and byte strings in one piece of memory: what listings are kept in and sent as.

/// Collects numbers and byte strings.
#[derive(Default)]
pub(super) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Seven bits a byte, the lowest first; all but the last byte have the eighth set.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    pub(super) fn count(&mut self, number: usize) {
        self.number(number as u64);
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.count(text.len());
        self.bytes.extend_from_slice(text);
    }
}

/// Takes out what a [`Writer`] has collected, in the same order; none where there is something
/// else, which no length or count that is read must be trusted for.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn count(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(text)
    }

    /// As many as the next number says, each by `item`.
    pub(super) fn many<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.count()?).map(|_| item(self)).collect()
    }

    /// Whether all was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_went_in() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut writer = Writer::default();
        numbers.iter().for_each(|&number| writer.number(number));
        writer.text(b"caf\xe9");
        writer.count(2);
        writer.text(b"");
        writer.text(b"x");
        let mut reader = Reader::new(&writer.bytes);
        assert_eq!(numbers.map(|_| reader.number().unwrap()), numbers);
        assert_eq!(reader.text().unwrap(), b"caf\xe9");
        assert_eq!(reader.many(|r| r.text()).unwrap(), [&b""[..], b"x"]);
        assert!(reader.is_empty() && reader.number().is_none());
    }

    #[test]
    fn what_is_too_short_or_too_long_is_none() {
        assert!(Reader::new(&[0x80]).number().is_none());
        assert!(Reader::new(&[0xff; 20]).number().is_none());
        assert!(Reader::new(&[5, 1, 2]).text().is_none());
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(Reader::new(&huge).text().is_none());
        assert!(Reader::new(&huge).many(|r| r.number()).is_none());
    }
}
