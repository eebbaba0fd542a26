//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// Everything that can go wrong at the crate's public boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument breaks a rule: which one, its value, and the rule.
    #[error("{operand} is {value}, but {rule}")]
    Invalid {
        /// The argument's name, as a reader of the call knows it.
        operand: String,
        /// What was given.
        value: String,
        /// What is required, as the end of a sentence.
        rule: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Images, or what is read of them.
    #[error(transparent)]
    Input(#[from] data::Error),
    /// A network or its weights.
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
    /// What was given cannot be used; the text says why and what to do.
    #[error("{0}")]
    Data(String),
    /// A checkpoint cannot be read or does not fit what it is loaded into.
    #[error("{path}: {problem}")]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// What several processes do together has failed; the text says where and what.
    #[error("{0}")]
    Distributed(String),
    /// Another process could not go on, so that this one stops too.
    #[error("stopped because of rank {rank}: {text}")]
    Elsewhere {
        /// The other process's number.
        rank: usize,
        /// What it said.
        text: String,
    },
}

/// A result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `operand` is `value`, but `rule`.
    pub fn invalid(
        operand: impl Into<String>,
        value: impl std::fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Error::Invalid { operand: operand.into(), value: value.to_string(), rule: rule.into() }
    }

    /// A system error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_owned(), source }
    }

    /// A malformed or unfitting checkpoint at `path`.
    pub fn checkpoint(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Checkpoint { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
