//! What can go wrong.

use std::path::{Path, PathBuf};

use crate::Location;

/// Why an object could not be read, written or listed. Every message names the object, what was
/// asked for and the rule.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A location or a setting breaks a rule: which one, its value, and the rule.
    #[error("{operand} is {value}, but {rule}")]
    Invalid {
        /// What it is: `location`, `tries`.
        operand: String,
        /// What was given.
        value: String,
        /// What is required, as the end of a sentence.
        rule: String,
    },
    /// There is no such object or bucket.
    #[error("{at}: {problem}")]
    NotFound {
        /// The object.
        at: Location,
        /// What was asked for, and what the store said.
        problem: String,
    },
    /// The credentials are missing, have expired, or do not allow it.
    #[error("{at}: {problem}")]
    Denied {
        /// The object.
        at: Location,
        /// What was asked for, what the store said, and what to do.
        problem: String,
    },
    /// The object is no longer the one that was looked at first.
    #[error("{at}: {problem}")]
    Changed {
        /// The object.
        at: Location,
        /// What differs.
        problem: String,
    },
    /// The store can't be reached, or went on failing for all tries.
    #[error("{at}: {problem}")]
    Unavailable {
        /// The object.
        at: Location,
        /// What happened, how often it was tried, and for how long.
        problem: String,
    },
    /// The store can't do it, or won't.
    #[error("{at}: {problem}")]
    Refused {
        /// The object.
        at: Location,
        /// What was asked for, and what the store said.
        problem: String,
    },
    /// A file of this machine, to or from which an object was to be copied.
    #[error("{path}: {text}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        text: String,
    },
}

/// A result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(
        operand: impl Into<String>,
        value: impl std::fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Error::Invalid { operand: operand.into(), value: value.to_string(), rule: rule.into() }
    }

    /// For `map_err`: a system error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Error::Io { path: path.to_owned(), text: error.to_string() }
    }

    /// Whether there is no such object, as opposed to one that can't be had.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}
