//! How patient a [`Storage`](crate::Storage) is.

use std::time::Duration;

use crate::{Error, Result};

/// How often and how long something is tried, and what stores are told besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How often a request is sent that brings nothing.
    pub tries: u32,
    /// The pause before the second try; each further one is twice as long, with a random part.
    pub first_pause: Duration,
    /// How long one piece of work (a range, a part, a page of a listing) is tried altogether.
    pub limit: Duration,
    /// How long a server may take for one answer.
    pub timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// Variables (`AWS_REGION`, …) with their values, in place of those of the environment.
    pub variables: Vec<(String, String)>,
}

impl Default for Settings {
    /// 8 tries within two minutes, the first pause a fifth of a second; 30 s for an answer, 5 s for
    /// a connection.
    fn default() -> Self {
        Settings {
            tries: 8,
            first_pause: Duration::from_millis(200),
            limit: Duration::from_secs(120),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            variables: Vec::new(),
        }
    }
}

impl Settings {
    /// The default, but nothing takes longer than `limit`.
    pub fn within(limit: Duration) -> Self {
        let default = Settings::default();
        let limit = limit.min(default.limit);
        Settings {
            limit,
            timeout: default.timeout.min(limit),
            connect_timeout: default.connect_timeout.min(limit),
            ..default
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.tries == 0 {
            return Err(Error::invalid("tries", self.tries, "at least 1 is needed"));
        }
        for (name, time) in [
            ("limit", self.limit),
            ("timeout", self.timeout),
            ("connect timeout", self.connect_timeout),
        ] {
            if time.is_zero() {
                return Err(Error::invalid(name, "0 s", "it must be longer"));
            }
        }
        Ok(())
    }
}
