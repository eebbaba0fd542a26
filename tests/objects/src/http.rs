//! As much of HTTP as a proxy needs.

use std::io::{self, BufRead, Read};

/// More than any head here has.
const LONGEST_HEAD: u64 = 1 << 16;

/// The first line and the headers of a request or an answer, as they came.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The next head of a connection; none at its end.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut lines = from.take(LONGEST_HEAD);
        let mut next = || {
            let mut line = String::new();
            lines.read_line(&mut line).map(|_| line.trim_end().to_owned())
        };
        let first = next()?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let line = next()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Head { first, headers }))
    }

    pub(crate) fn answer(status: u16) -> Self {
        Head { first: format!("HTTP/1.1 {status} Status"), headers: Vec::new() }
    }

    /// The value of this header, whose name is in small letters.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    pub(crate) fn with(self, name: &str, value: impl ToString) -> Self {
        let mut head = self.without(name);
        head.headers.push((name.to_owned(), value.to_string()));
        head
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.get("content-length")?.parse().ok()
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = self.first.clone() + "\r\n";
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "\r\n").into_bytes()
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// `/bucket/key?query`, with escapes.
    pub target: String,
    /// The status of its answer; 0 where it had none.
    pub status: u16,
    head: Head,
}

impl Request {
    pub(crate) fn of(head: Head) -> Option<Self> {
        let mut words = head.first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Request { method, target, status: 0, head })
    }

    /// The header of this name, in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// First byte and last of a range that is asked for, both included; the last of an open one is
    /// `u64::MAX`.
    pub fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().unwrap_or(u64::MAX)))
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}
