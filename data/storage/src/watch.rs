//! Requests on their way: what each brought, and when the next may follow.
//!
//! object_store's errors don't say when a server wants to be asked again, nor what kind a failed
//! request's failure was, so that is noted here, between it and the client it sends by.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::HeaderMap;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};

tokio::task_local! {
    /// What the last request of this task brought.
    static SEEN: RefCell<Seen>;
}

/// What a request brought.
#[derive(Debug, Clone, Default)]
pub(crate) enum Seen {
    /// None was sent, or it brought what was asked for.
    #[default]
    Nothing,
    /// An answer that is none of success.
    Answer(Answer),
    /// No answer.
    Lost(HttpErrorKind, String),
}

/// An answer that is none of success.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// The code of HTTP.
    pub status: u16,
    /// The store's own, such as `NoSuchKey`.
    pub code: Option<String>,
    /// What the store says.
    pub message: Option<String>,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The region that the bucket is in, where S3 says it.
    pub region: Option<String>,
}

/// Runs `work` and tells what its last request brought.
pub(crate) async fn seen<T>(work: impl Future<Output = T>) -> (T, Seen) {
    SEEN.scope(RefCell::default(), async {
        let made = work.await;
        (made, SEEN.with(|seen| seen.take()))
    })
    .await
}

/// When a store may be asked again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<Option<Instant>>>);

impl Gate {
    /// How long it is closed from now on.
    pub(crate) fn closed_for(&self) -> Duration {
        let opens = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        opens.map_or(Duration::ZERO, |opens| opens.saturating_duration_since(Instant::now()))
    }

    fn close(&self, pause: Duration) {
        let opens = Instant::now() + pause;
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *gate = Some(gate.map_or(opens, |other| other.max(opens)));
    }
}

/// Makes the clients of one store.
#[derive(Debug)]
pub(crate) struct Watching(pub Gate);

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { client, gate: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    client: HttpClient,
    gate: Gate,
}

/// Longest pause that is waited for here; whoever asked gives up sooner.
const LONGEST: Duration = Duration::from_secs(3600);

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // All requests to a store wait together: others would only be refused too.
        loop {
            let pause = self.gate.closed_for();
            if pause.is_zero() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                note(Seen::Lost(error.kind(), chain(&error)));
                return Err(error);
            }
        };
        let status = response.status();
        if status.is_success() {
            note(Seen::Nothing);
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        // Of an error's body that breaks off the status says enough.
        let text = body.bytes().await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let retry_after = retry_after(&parts.headers);
        if let (429 | 503, Some(pause)) = (status.as_u16(), retry_after) {
            self.gate.close(pause.min(LONGEST));
        }
        note(Seen::Answer(Answer {
            status: status.as_u16(),
            code: element(&text, "Code").or_else(|| header(&parts.headers, "x-ms-error-code")),
            message: element(&text, "Message"),
            retry_after,
            region: header(&parts.headers, "x-amz-bucket-region"),
        }));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(text)))
    }
}

/// Outside of [`seen`], as for credentials that are fetched ahead, nobody asks.
fn note(what: Seen) {
    let _ = SEEN.try_with(|seen| seen.replace(what));
}

/// The error and its causes in one sentence.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The text of an XML element in an error's body.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    // Azure's have a second line with the request's number.
    Some(text.lines().next().unwrap_or_default().trim().to_owned()).filter(|text| !text.is_empty())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, "retry-after")?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(&text).ok()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let then = u64::try_from(date.timestamp()).ok()?;
    Some(Duration::from_secs(then.saturating_sub(now.as_secs())))
}

#[cfg(test)]
mod tests {
    use object_store::HeaderValue;

    use super::*;

    #[test]
    fn pauses_are_read_in_both_forms() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert!(of("Fri, 31 Dec 2100 23:59:59 GMT").unwrap() > Duration::from_secs(1 << 30));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn errors_are_found_in_their_bodies() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>Not\nthere</Message></Error>";
        assert_eq!(element(body, "Code").as_deref(), Some("NoSuchKey"));
        assert_eq!(element(body, "Message").as_deref(), Some("Not"));
        assert_eq!(element("<Code>", "Code"), None);
    }

    #[test]
    fn a_gate_stays_closed_for_the_longest_pause() {
        let gate = Gate::default();
        assert!(gate.closed_for().is_zero());
        gate.close(Duration::from_secs(60));
        gate.close(Duration::from_secs(1));
        assert!(gate.closed_for() > Duration::from_secs(50));
    }
}
