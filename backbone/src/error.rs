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
    /// A file was read, but its content is not what it should be.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Weights do not fit the model they were loaded into.
    #[error("{0}")]
    Weights(String),
    /// Weights fill a part of the model, which was to be filled.
    #[error("{0}")]
    Incomplete(String),
    /// A backbone in a shared library refused a call.
    #[error("{path}: {text}")]
    Plugin {
        /// The library.
        path: PathBuf,
        /// What it said.
        text: String,
    },
    /// A file of a hub, or the hub itself, cannot be had.
    #[error(transparent)]
    Hub(#[from] crate::hub::Error),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
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

    /// A malformed file at `path`.
    pub fn format(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}

impl From<tch::TchError> for Error {
    /// Keeps libtorch's sentence and drops the C++ backtrace behind it.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let end = text.find("\nException raised from").unwrap_or(text.len());
        Error::Torch(text[..end].trim().to_owned())
    }
}
