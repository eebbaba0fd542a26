//! Trying again, and saying why it was no use.

use std::time::{Duration, Instant};

use object_store::Error as StoreError;
use object_store::client::HttpErrorKind;
use words::counted;

use crate::connect::Store;
use crate::watch::{Answer, Seen, chain, seen};
use crate::{Error, Location, Result, Settings, Troubles};

/// Why one try brought nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What object_store says.
    Store(StoreError),
    /// Something else came than was asked for, such as a body of another length.
    Wrong(String),
    /// It won't get better; the error is complete.
    Final(Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

/// Who tries, and what for.
pub(crate) struct Trying<'a> {
    pub settings: &'a Settings,
    pub troubles: &'a Troubles,
    pub store: &'a Store,
    pub at: &'a Location,
    /// What is asked for, as a person says it: `reading bytes 0..512`.
    pub what: &'a str,
}

/// How a failure is dealt with.
enum Verdict {
    Again(String),
    Never(Error),
}

impl Trying<'_> {
    /// What `once` makes, tried until it succeeds or can't.
    ///
    /// # Errors
    /// That of the last try, with the number of them and the time they took.
    pub(crate) async fn run<T, W>(&self, once: impl Fn() -> W) -> Result<T>
    where
        W: Future<Output = std::result::Result<T, Failure>>,
    {
        let Settings { tries, limit, first_pause, .. } = *self.settings;
        let begun = Instant::now();
        let mut trouble = None;
        for attempt in 1.. {
            let left = limit.saturating_sub(begun.elapsed());
            let (text, retry_after) = match tokio::time::timeout(left, seen(once())).await {
                Ok((Ok(made), _)) => return Ok(made),
                Ok((Err(failure), seen)) => match self.verdict(failure, &seen) {
                    Verdict::Never(error) => return Err(error),
                    Verdict::Again(text) => (text, seen.retry_after()),
                },
                Err(_) => ("no answer".to_owned(), None),
            };
            let pause = self.pause(attempt, first_pause).max(self.store.gate.closed_for());
            let spent = begun.elapsed();
            let given_up = |why: &str| Error::Unavailable {
                at: self.at.clone(),
                problem: format!(
                    "{}: {text}; given up after {} in {:.1} s{why}",
                    self.what,
                    counted(attempt, "try"),
                    spent.as_secs_f64(),
                ),
            };
            if attempt >= tries {
                return Err(given_up(""));
            }
            if spent + pause >= limit {
                let limit = limit.as_secs_f64();
                return Err(given_up(&match retry_after {
                    Some(asked) => format!(
                        ": it asks for a pause of {} s, and no more than {limit:.0} s are spent on \
                         one request",
                        asked.as_secs(),
                    ),
                    None => format!(", of the {limit:.0} s that one request may take"),
                }));
            }
            trouble.get_or_insert_with(|| self.troubles.begin()).note(format!(
                "{}: {}: {text}; try {} of {tries} in {:.1} s",
                self.at,
                self.what,
                attempt + 1,
                pause.as_secs_f64(),
            ));
            tracing::debug!(
                "{}: {}: {text}; tried {}",
                self.at,
                self.what,
                counted(attempt, "try")
            );
            tokio::time::sleep(pause).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// Twice as long each time, up to a quarter of the limit, and up to half of that less: those
    /// that failed together don't come back together.
    fn pause(&self, attempt: u32, first: Duration) -> Duration {
        let longest = self.settings.limit / 4;
        let full = first.saturating_mul(1 << (attempt - 1).min(16)).min(longest);
        // The clock's last digits are random enough to keep requests apart.
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let share = f64::from(nanos.map_or(0, |t| t.subsec_nanos()) % 1024) / 1024.0;
        full.mul_f64(1.0 - 0.5 * share)
    }

    fn verdict(&self, failure: Failure, seen: &Seen) -> Verdict {
        let error = match failure {
            Failure::Final(error) => return Verdict::Never(error),
            Failure::Wrong(text) => return Verdict::Again(text),
            Failure::Store(error) => error,
        };
        match seen {
            Seen::Answer(answer) => self.of_answer(answer),
            Seen::Lost(kind, text) => self.of_loss(*kind, text),
            Seen::Nothing => self.of_error(error),
        }
    }

    fn of_answer(&self, answer: &Answer) -> Verdict {
        let Answer { status, code, message, region, .. } = answer;
        let mut said = format!("status {status}");
        match (code, message) {
            (Some(code), Some(message)) => said = format!("{said} {code} ({message})"),
            (Some(code), None) => said = format!("{said} {code}"),
            _ => {}
        }
        let problem = |advice: &str| format!("{}: {said}{advice}", self.what);
        let at = self.at.clone();
        let code = code.as_deref().unwrap_or_default();
        let expired = ["ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException"];
        if expired.contains(&code) {
            return Verdict::Never(Error::Denied {
                at,
                problem: problem("; the credentials have expired: get new ones, and go on"),
            });
        }
        // The same word is used for a bucket in another region.
        if let (301 | 307 | 400, Some(region)) = (status, region) {
            let advice = format!("; the bucket is in the region {region}: set AWS_REGION={region}");
            return Verdict::Never(Error::Refused { at, problem: problem(&advice) });
        }
        match status {
            408 | 429 | 500..=599 if *status != 501 => Verdict::Again(said),
            // S3's for a connection that was too slow.
            400 if code == "RequestTimeout" => Verdict::Again(said),
            401 | 403 => Verdict::Never(Error::Denied { at, problem: problem(&self.denied()) }),
            404 | 410 => Verdict::Never(Error::NotFound {
                at,
                problem: problem(match code {
                    "NoSuchBucket" | "ContainerNotFound" => "; there is no such bucket",
                    _ => "; there is no such object",
                }),
            }),
            412 => Verdict::Never(Error::Changed {
                at,
                problem: problem("; the object is another one than when it was looked at first"),
            }),
            416 => Verdict::Never(Error::Changed {
                at,
                problem: problem("; the object is shorter than when it was looked at first"),
            }),
            _ => Verdict::Never(Error::Refused { at, problem: problem("") }),
        }
    }

    /// What to do where access is denied.
    fn denied(&self) -> String {
        let (names, public) = match self.at.scheme() {
            crate::Scheme::S3 => (
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN)",
                "; AWS_SKIP_SIGNATURE=true reads a public bucket without",
            ),
            crate::Scheme::Gcs => ("GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS", ""),
            crate::Scheme::Azure => {
                ("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "")
            }
            crate::Scheme::Http => {
                return "; the server gives it to nobody without a password".into();
            }
        };
        format!("; the credentials don't allow it, or there are none: {names} set them{public}")
    }

    fn of_loss(&self, kind: HttpErrorKind, text: &str) -> Verdict {
        let fatal = ["certificate", "URL scheme is not allowed", "builder error"];
        if fatal.iter().any(|mark| text.contains(mark)) {
            let advice = match () {
                () if text.contains("certificate") => {
                    "; the system's certificates are trusted, SSL_CERT_FILE names others"
                }
                () if text.contains("not allowed") => {
                    "; without encryption a store is read only where AWS_ALLOW_HTTP=true (or \
                     GOOGLE_…, AZURE_…) allows it"
                }
                () => "",
            };
            let problem = format!("{}: {text}{advice}", self.what);
            return Verdict::Never(Error::Refused { at: self.at.clone(), problem });
        }
        let what = match kind {
            HttpErrorKind::Connect => "no connection",
            HttpErrorKind::Timeout => "no answer in time",
            _ => "the connection broke",
        };
        Verdict::Again(format!("{what} ({text})"))
    }

    /// Of an error without a failed request: an answer that makes no sense, a body that broke off,
    /// or settings.
    fn of_error(&self, error: StoreError) -> Verdict {
        let at = self.at.clone();
        let problem = format!("{}: {}", self.what, chain(&error));
        match error {
            StoreError::Generic { .. } | StoreError::JoinError { .. } => {
                let text = chain(&error);
                let is_settings = ["not found in", "Missing", "URL scheme"];
                match is_settings.iter().any(|mark| text.contains(mark)) {
                    true => Verdict::Never(Error::Refused { at, problem }),
                    false => Verdict::Again(text),
                }
            }
            StoreError::NotFound { .. } => Verdict::Never(Error::NotFound { at, problem }),
            StoreError::Precondition { .. } => Verdict::Never(Error::Changed { at, problem }),
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                Verdict::Never(Error::Denied { at, problem })
            }
            _ => Verdict::Never(Error::Refused { at, problem }),
        }
    }
}

impl Seen {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Seen::Answer(answer) => answer.retry_after,
            _ => None,
        }
    }
}
