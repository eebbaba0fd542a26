//! Who may ask, and what a page may load.
//!
//! A page of any site that is open in the same browser can send requests to this computer. What a
//! browser says of where a request comes from (`Host`, `Origin`) is checked, so that only our own
//! page is answered; a name that another site's owner points at this computer (DNS rebinding) is
//! none of ours.

use std::net::IpAddr;

use axum::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method};

/// By what names the server may be called, and in whose pages it may be shown.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Host names besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Origins of pages that may show this one in a frame.
    pub frames: Vec<String>,
}

impl Guard {
    /// Whether a request with these headers may be answered; else why not.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), String> {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(&HOST).unwrap_or_default();
        if !self.knows(host) {
            return Err(format!(
                "the request is for the host {host:?}, which this server is not; \
                 --allow-host NAME adds a name"
            ));
        }
        if *method == Method::GET {
            return Ok(());
        }
        match text(&ORIGIN) {
            None => Ok(()),
            Some(origin) if origin.split_once("://").is_some_and(|(_, from)| from == host) => {
                Ok(())
            }
            Some(origin) => Err(format!("the request comes from a page of {origin}")),
        }
    }

    /// Addresses and `localhost` on any port, since ports are forwarded, and what was allowed.
    fn knows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let same = |allowed: &String| allowed.eq_ignore_ascii_case(name);
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(same)
    }

    /// Headers of every response.
    pub fn headers(&self) -> [(&'static str, HeaderValue); 5] {
        let frames: String = self.frames.iter().map(|origin| format!(" {origin}")).collect();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
             connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'{frames}"
        );
        // What was given on the command line may be no header: then nobody may show the page.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        [
            ("content-security-policy", policy),
            ("x-content-type-options", HeaderValue::from_static("nosniff")),
            ("cross-origin-resource-policy", HeaderValue::from_static("same-origin")),
            ("referrer-policy", HeaderValue::from_static("no-referrer")),
            // The page of a program that was built anew must not be the old one's.
            ("cache-control", HeaderValue::from_static("no-store")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, headers: &[(&'static str, &'static str)]) -> Result<(), String> {
        let guard = Guard { hosts: vec!["me.example".to_owned()], ..Guard::default() };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        guard.check(&method, &headers.collect())
    }

    #[test]
    fn our_own_page_may_ask_by_any_name_of_this_computer() {
        for host in
            ["127.0.0.1:7860", "localhost:9", "LOCALHOST", "[::1]:80", "10.0.0.7:1", "Me.example"]
        {
            assert_eq!(check(Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        let own = [("host", "localhost:9"), ("origin", "http://localhost:9")];
        assert_eq!(check(Method::POST, &own), Ok(()));
        // Behind something that speaks TLS for us.
        let own = [("host", "me.example"), ("origin", "https://me.example")];
        assert_eq!(check(Method::POST, &own), Ok(()));
        // A program, not a page.
        assert_eq!(check(Method::POST, &[("host", "127.0.0.1:1")]), Ok(()));
    }

    #[test]
    fn pages_of_others_and_names_of_others_are_refused() {
        for host in ["evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert!(check(Method::GET, &[("host", host)]).is_err(), "{host}");
        }
        assert!(check(Method::GET, &[]).is_err());
        for origin in ["http://evil.example", "null", "http://127.0.0.1:2", "127.0.0.1:1"] {
            let headers = [("host", "127.0.0.1:1"), ("origin", origin)];
            assert!(check(Method::POST, &headers).is_err(), "{origin}");
        }
    }
}
