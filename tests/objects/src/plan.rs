//! What goes wrong, and when.

use std::time::Duration;

use crate::Request;

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The server refuses with this status and code of S3 (`SlowDown`, `AccessDenied`,
    /// `ExpiredToken`, …), and the seconds of `Retry-After`.
    Refused { status: u16, code: &'static str, retry_after: Option<u64> },
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// The connection ends in order after so many bytes of the body.
    Cut(usize),
    /// So many bytes fewer than there are, announced and sent.
    Shorter(usize),
    /// So many bytes more than there are, announced and sent.
    Longer(usize),
    /// The last byte is another.
    WrongByte,
    /// The whole object, whatever range was asked for.
    NoRange,
    /// Nothing for so long, then the end of the connection.
    Silence(Duration),
    /// After so many bytes of the body nothing for so long; then the rest.
    Stall(usize, Duration),
    /// The request is carried out, and its answer lost.
    AnswerLost,
}

impl Fault {
    /// Too many requests, as S3 says it: 503 with `SlowDown`.
    pub fn slow_down(retry_after: Option<u64>) -> Self {
        Fault::Refused { status: 503, code: "SlowDown", retry_after }
    }

    /// Too many requests, as other servers say it.
    pub fn too_many(retry_after: Option<u64>) -> Self {
        Fault::Refused { status: 429, code: "TooManyRequests", retry_after }
    }

    /// A bucket without permission.
    pub fn denied() -> Self {
        Fault::Refused { status: 403, code: "AccessDenied", retry_after: None }
    }

    /// Credentials that were good for an hour.
    pub fn expired() -> Self {
        Fault::Refused { status: 400, code: "ExpiredToken", retry_after: None }
    }
}

/// Which requests a fault meets: of a method, of paths that hold a text, some of these.
#[derive(Debug, Clone)]
pub struct Rule {
    method: Option<&'static str>,
    path: String,
    before: usize,
    times: usize,
}

impl Rule {
    fn of(method: Option<&'static str>, path: &str) -> Self {
        Rule { method, path: path.to_owned(), before: 0, times: 1 }
    }

    /// The next request whose path or query holds `path`; of any, if that is empty.
    pub fn any(path: &str) -> Self {
        Self::of(None, path)
    }

    /// The next `GET` of such.
    pub fn get(path: &str) -> Self {
        Self::of(Some("GET"), path)
    }

    /// The next `HEAD` of such.
    pub fn head(path: &str) -> Self {
        Self::of(Some("HEAD"), path)
    }

    /// The next `PUT` of such: an object or a part of one.
    pub fn put(path: &str) -> Self {
        Self::of(Some("PUT"), path)
    }

    /// The next `POST` of such: what begins and completes an upload in parts.
    pub fn post(path: &str) -> Self {
        Self::of(Some("POST"), path)
    }

    /// Lets so many of them pass first.
    pub fn after(self, before: usize) -> Self {
        Rule { before, ..self }
    }

    /// So many of them instead of one.
    pub fn times(self, times: usize) -> Self {
        Rule { times, ..self }
    }

    /// All of them from there on.
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    fn meets(&self, request: &Request) -> bool {
        self.method.is_none_or(|method| method == request.method)
            && request.target.contains(&self.path)
    }
}

/// All that is to go wrong.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    rules: Vec<(Rule, Fault)>,
    /// Passes before each answer.
    pub(crate) latency: Duration,
}

impl Plan {
    pub(crate) fn add(&mut self, rule: Rule, fault: Fault) {
        self.rules.push((rule, fault));
    }

    pub(crate) fn clear(&mut self) {
        *self = Plan::default();
    }

    /// What goes wrong with `request`: the first rule that meets it and is not used up.
    pub(crate) fn next(&mut self, request: &Request) -> Option<Fault> {
        for (rule, fault) in &mut self.rules {
            if !rule.meets(request) || rule.times == 0 {
                continue;
            }
            if rule.before > 0 {
                rule.before -= 1;
                continue;
            }
            if rule.times != usize::MAX {
                rule.times -= 1;
            }
            return Some(fault.clone());
        }
        None
    }
}
