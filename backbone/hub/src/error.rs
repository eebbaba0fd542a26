//! What can go wrong.

use std::path::{Path, PathBuf};

/// Why a file is not there. Every message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name or a setting breaks a rule: which one, its value, and the rule.
    #[error("{operand} is {value}, but {rule}")]
    Invalid {
        /// What it is: `the name of the file`, `HF_ENDPOINT`.
        operand: String,
        /// What was given.
        value: String,
        /// What is required, as the end of a sentence.
        rule: String,
    },
    /// The hub has no such thing, or does not give it.
    #[error("{name}: {problem}")]
    Refused {
        /// What was asked for, as it was given: `hf:owner/name`.
        name: String,
        /// What the hub said, and what to do.
        problem: String,
    },
    /// The hub cannot be reached, or stopped answering.
    #[error("{name}: {problem}")]
    Unreachable {
        /// What was asked for.
        name: String,
        /// What happened, how often it was tried, and what to do.
        problem: String,
    },
    /// It may not be asked (`HF_HUB_OFFLINE`), and the cache does not have it.
    #[error("{name}: {problem}")]
    NotCached {
        /// What was asked for.
        name: String,
        /// What is missing, and where.
        problem: String,
    },
    /// What came is not what the hub announced.
    #[error("{name}: {problem}")]
    Damaged {
        /// What was asked for.
        name: String,
        /// What differs.
        problem: String,
    },
    /// The cache folder cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
        move |source| Error::Io { path: path.to_owned(), source }
    }
}
