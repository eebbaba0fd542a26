//! As much of HTTP as a hub needs.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;

use crate::Side;

/// More than any request here has.
const LONGEST_HEAD: u64 = 1 << 16;

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    pub side: Side,
    pub method: String,
    /// The path, with escapes and without what is behind `?`.
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The header of this name, in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn read(stream: &mut TcpStream, side: Side) -> io::Result<Option<Self>> {
        let mut lines = BufReader::new(stream.take(LONGEST_HEAD)).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Request { side, method: method.to_owned(), path, headers }))
    }

    /// The first byte that is asked for.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn status(code: u16) -> Self {
        Reply { code, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: String) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value));
    }

    /// `body`, or as much of it as the request asks for.
    pub(crate) fn file(request: &Request, body: &[u8], ranged: bool) -> Self {
        match request.from().filter(|_| ranged) {
            Some(from) if from >= body.len() => Reply::status(416),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                let mut reply = Reply::status(206).with("Content-Range", range);
                reply.body = body[from..].to_vec();
                reply
            }
            None => Reply { code: 200, headers: Vec::new(), body: body.to_vec() },
        }
    }

    pub(crate) fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", self.code);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head + "\r\n"
    }
}
