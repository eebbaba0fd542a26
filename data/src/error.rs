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
    /// A file was read, but holds no image that can be used.
    #[error("{path}: {problem}")]
    Image {
        /// The file, or `shard.tar:member`.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An object in a store could not be had.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A data set as a whole cannot be used; the text says why and what to do.
    #[error("{0}")]
    Data(String),
}

/// A result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Gives an error type that is [`Error`], or made from it, what makes one of a wrong argument or
/// a system error.
#[macro_export]
macro_rules! input_errors {
    ($error:ty) => {
        impl $error {
            /// `operand` is `value`, but `rule`.
            pub fn invalid(
                operand: impl Into<String>,
                value: impl std::fmt::Display,
                rule: impl Into<String>,
            ) -> Self {
                let (operand, value, rule) = (operand.into(), value.to_string(), rule.into());
                $crate::Error::Invalid { operand, value, rule }.into()
            }

            /// A system error at `path`.
            pub fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
                $crate::Error::Io { path: path.as_ref().to_owned(), source }.into()
            }
        }
    };
}

input_errors!(Error);

impl Error {
    /// An unusable image at `path`. What is said of it becomes one line, as lists of such images
    /// have: some decoders end theirs with a line's end.
    pub fn image(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        let problem: String = problem.into();
        let lines: Vec<&str> = problem.lines().map(str::trim).collect();
        Error::Image { path: path.as_ref().to_owned(), problem: lines.join(" ") }
    }
}

/// The error and its causes in one sentence; a cause that is already part of
/// the text before it is not repeated.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.is_empty() {
            true => cause,
            false if text.contains(&cause) => text,
            false => format!("{text}: {cause}"),
        }
    })
}
