//! Requests to a hub, and from there to wherever it keeps its files.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use crate::Settings;

const REDIRECTS: usize = 10;
/// The header that tells a hub from any other server.
pub(crate) const COMMIT: &str = "x-repo-commit";
/// What stays as it is in a part of an address.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(crate) type Answer = Response<Body>;

/// A way to one hub.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    agent: Agent,
    pub(crate) settings: &'a Settings,
}

/// Why there is no answer that can be used.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The hub, or the server it sent us to, says no.
    Status(Status),
    /// Nothing came, or it broke off.
    Lost(String),
    /// Asking again would not help: certificates, redirects.
    Fatal(String),
}

/// An answer that is none of success.
#[derive(Debug)]
pub(crate) struct Status {
    /// The code of HTTP.
    pub(crate) code: u16,
    /// The hub's own, such as `EntryNotFound`.
    pub(crate) error: Option<String>,
    /// What the hub says.
    pub(crate) message: Option<String>,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// The host that answered.
    host: String,
}

impl Failure {
    /// The same of a body of which `have` bytes had come.
    pub(crate) fn after(self, have: u64, size: Option<u64>) -> Self {
        let of = size.map_or(String::new(), |size| format!(" of {size}"));
        match self {
            Failure::Lost(text) => Failure::Lost(format!("{text}, after {have}{of} bytes")),
            other => other,
        }
    }

    /// Whether it may go away by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Failure::Status(status) => matches!(status.code, 408 | 429 | 500 | 502 | 503 | 504),
            Failure::Lost(_) => true,
            Failure::Fatal(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(Status { code, message, host, .. }) => {
                write!(f, "{host} answers with status {code}")?;
                message.as_ref().map_or(Ok(()), |message| write!(f, " ({message})"))
            }
            Failure::Lost(text) | Failure::Fatal(text) => f.write_str(text),
        }
    }
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        // ring needs no more than a C compiler; the system's certificates are trusted, so that
        // those of a company's proxy are.
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let patience = Some(settings.patience);
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Redirects are followed here: the token must not go along.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("spark-backbone/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(patience)
            .timeout_connect(patience)
            .timeout_recv_response(patience.map(|patience| patience * 3))
            .timeout_per_read(patience)
            .timeout_per_write(patience)
            .build();
        Client { agent: config.into(), settings }
    }

    /// The address of a file.
    pub(crate) fn file_url(&self, repo_id: &str, revision: &str, file: &str) -> String {
        let file: Vec<String> = file.split('/').map(encoded).collect();
        let Settings { endpoint, .. } = self.settings;
        format!("{endpoint}/{repo_id}/resolve/{}/{}", encoded(revision), file.join("/"))
    }

    /// The address of the list of a revision's files.
    pub(crate) fn listing_url(&self, repo_id: &str, revision: &str) -> String {
        format!("{}/api/models/{repo_id}/revision/{}", self.settings.endpoint, encoded(revision))
    }

    /// What the hub says of the file at `url`. Where that lies on another host, it is the hub's own
    /// answer, which alone has the commit.
    pub(crate) fn head(&self, url: &str) -> Result<Answer, Failure> {
        self.follow(url, |url| self.send(true, url, 0), |headers| headers.contains_key(COMMIT))
    }

    /// What lies at `url`, from byte `from` on.
    pub(crate) fn get(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        self.follow(url, |url| self.send(false, url, from), |_| false)
    }

    /// Sends to `url` and to where it leads, until it leads nowhere, or to another host from an
    /// answer that `is_enough`.
    fn follow(
        &self,
        url: &str,
        send: impl Fn(&str) -> Result<Answer, Failure>,
        is_enough: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let answer = send(&url)?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            if !status.is_redirection() {
                return Err(Failure::Status(Status::of(&answer, &url)));
            }
            let target = text(answer.headers(), header::LOCATION.as_str());
            let target = target.and_then(|target| joined(&url, &target)).ok_or_else(|| {
                Failure::Fatal(format!("{} redirects to no address", host_of(&url)))
            })?;
            if origin(&target) != origin(&url) && is_enough(answer.headers()) {
                return Ok(answer);
            }
            if url.starts_with("https://") && !target.starts_with("https://") {
                let (from, to) = (host_of(&url), host_of(&target));
                let text = format!("{from} redirects to {to} without encryption");
                return Err(Failure::Fatal(text));
            }
            url = target;
        }
        Err(Failure::Fatal(format!("{} redirects more than {REDIRECTS} times", host_of(&url))))
    }

    fn send(&self, head: bool, url: &str, from: u64) -> Result<Answer, Failure> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        // Sizes and hashes are those of the file, not of a compressed form.
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.settings.token
            && origin(url) == origin(&self.settings.endpoint)
        {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(|error| failure(error, url))
    }
}

impl Status {
    fn of(answer: &Answer, url: &str) -> Self {
        let headers = answer.headers();
        Status {
            code: answer.status().as_u16(),
            error: text(headers, "x-error-code"),
            message: text(headers, "x-error-message"),
            retry_after: number(headers, header::RETRY_AFTER.as_str()).map(Duration::from_secs),
            host: host_of(url).to_owned(),
        }
    }
}

/// A header's text, if it is there and is text.
pub(crate) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

/// A header's number.
pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// What went wrong on the way, in words for people.
pub(crate) fn failure(error: ureq::Error, url: &str) -> Failure {
    let host = host_of(url);
    match error {
        ureq::Error::Rustls(error) => untrusted(host, &error),
        ureq::Error::Tls(problem) => untrusted(host, &problem),
        ureq::Error::Io(error) if error.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
            untrusted(host, &error)
        }
        ureq::Error::HostNotFound => Failure::Fatal(format!("{host} is not found")),
        ureq::Error::InvalidProxyUrl => {
            Failure::Fatal("the proxy that HTTPS_PROXY or ALL_PROXY names is no address".into())
        }
        ureq::Error::ConnectProxyFailed(problem) => {
            Failure::Fatal(format!("the proxy does not lead to {host}: {problem}"))
        }
        ureq::Error::Http(error) => Failure::Fatal(format!("{url:?} is no address: {error}")),
        ureq::Error::BadUri(text) => Failure::Fatal(format!("{url:?} is no address: {text}")),
        other => Failure::Lost(format!("{host}: {other}")),
    }
}

fn untrusted(host: &str, problem: &dyn fmt::Display) -> Failure {
    Failure::Fatal(format!(
        "{host} cannot be trusted: {problem}. The system's certificates are used; SSL_CERT_FILE \
         names others"
    ))
}

fn encoded(part: &str) -> String {
    utf8_percent_encode(part, PART).to_string()
}

/// Scheme, host and port: who a token is for.
fn origin(url: &str) -> Option<&str> {
    let start = url.find("://")? + "://".len();
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |end| start + end);
    Some(&url[..end])
}

/// Host and port. Paths and queries of addresses may hold signatures, which are not for messages.
fn host_of(url: &str) -> &str {
    let origin = origin(url).unwrap_or(url);
    origin.split_once("://").map_or(origin, |(_, host)| host)
}

/// Where `target` leads from `base`.
fn joined(base: &str, target: &str) -> Option<String> {
    let target = utf8_percent_encode(target, CONTROLS).to_string();
    if target.starts_with("https://") || target.starts_with("http://") {
        Some(target)
    } else if target.starts_with("//") {
        Some(format!("{}:{target}", base.split_once(':')?.0))
    } else if target.starts_with('/') {
        Some(format!("{}{target}", origin(base)?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base = "https://hub.example/a/b/resolve/main/x";
        let cases = [
            ("/c/d", Some("https://hub.example/c/d")),
            ("//cdn.example/x?y", Some("https://cdn.example/x?y")),
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("file:///etc/passwd", None),
            ("x", None),
        ];
        for (target, expected) in cases {
            assert_eq!(joined(base, target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_not_tried_again() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, unknown);
        let failure = failure(error.into(), "https://hub.example/x");
        let text = failure.to_string();
        assert!(!failure.is_transient() && text.starts_with("hub.example cannot be trusted"));
        assert!(text.contains("UnknownIssuer") && text.contains("SSL_CERT_FILE"), "{text}");
    }

    #[test]
    fn a_token_is_for_scheme_host_and_port() {
        let hub = origin("https://hub.example");
        assert_eq!(origin("https://hub.example/a/b"), hub);
        for other in
            ["http://hub.example/a", "https://hub.example:444/a", "https://hub.example.org/a"]
        {
            assert_ne!(origin(other), hub, "{other}");
        }
        // What stands before the last @ of a host is a user's name.
        assert_ne!(origin("https://hub.example@evil.example/a"), hub);
    }
}
