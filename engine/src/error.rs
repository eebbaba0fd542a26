//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// Everything that can go wrong at the crate's public boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, a file or images.
    #[error(transparent)]
    Input(#[from] data::Error),
    /// A network or its weights.
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
    /// Object storage.
    #[error(transparent)]
    Storage(#[from] storage::Error),
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

data::input_errors!(Error);

impl Error {
    /// What a sentence says: [`data::Error::Data`].
    pub fn data(text: impl Into<String>) -> Self {
        data::Error::Data(text.into()).into()
    }

    /// A malformed or unfitting checkpoint at `path`.
    pub fn checkpoint(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Checkpoint { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
