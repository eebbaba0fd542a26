//! Asking again.

use std::time::Duration;

use crate::client::{Failure, Status};

/// How often a request is sent that brings nothing.
pub(crate) const ATTEMPTS: u32 = 5;
/// The longest pause that a server may ask for: a hub counts requests over five minutes.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Retry {
    first: Duration,
    failed: u32,
}

impl Retry {
    /// With a pause of `first` before the second try, and twice as long before each further one.
    pub(crate) fn new(first: Duration) -> Self {
        Retry { first, failed: 0 }
    }

    /// Starts to count anew, since something came.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try; what the failure is, and what was tried, if there is none.
    pub(crate) fn wait(&mut self, failure: &Failure) -> Result<(), String> {
        self.failed += 1;
        if !failure.is_transient() {
            return Err(failure.to_string());
        }
        let asked = match failure {
            Failure::Status(Status { retry_after, .. }) => *retry_after,
            _ => None,
        };
        if let Some(asked) = asked.filter(|asked| *asked > LONGEST) {
            return Err(format!(
                "{failure}, and asks for a pause of {} s, longer than the {} s that are waited: \
                 try again then",
                asked.as_secs(),
                LONGEST.as_secs()
            ));
        }
        if self.failed >= ATTEMPTS {
            return Err(format!("{failure}; tried {ATTEMPTS} times"));
        }
        let own = self.first * 2u32.pow(self.failed - 1);
        std::thread::sleep(asked.map_or(own, |asked| asked.max(own)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut retry = Retry::new(Duration::from_millis(2));
        let lost = Failure::Lost("gone".into());
        let begun = Instant::now();
        for _ in 1..ATTEMPTS {
            retry.wait(&lost).unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(2 + 4 + 8 + 16));
        assert_eq!(retry.wait(&lost).unwrap_err(), "gone; tried 5 times");
        retry.reset();
        retry.wait(&lost).unwrap();
        assert_eq!(retry.wait(&Failure::Fatal("no".into())).unwrap_err(), "no");
    }
}
