//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// Everything that can go wrong at the crate's public boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file was read, but is not what it should be.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A backbone or its weights.
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
    /// A picture that cannot be drawn.
    #[error(transparent)]
    Picture(#[from] engine::picture::Error),
    /// An argument, a file or images.
    #[error(transparent)]
    Input(#[from] data::Error),
    /// Optimizers, checkpoints or processes.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// A result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

data::input_errors!(Error);

impl Error {
    /// A malformed file at `path`.
    pub fn format(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
