//! Work under way.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::{Error, Location, Result};

/// A result that is on its way. Dropping it calls the work off.
pub struct Pending<T> {
    pub(crate) result: Receiver<Result<T>>,
    pub(crate) task: AbortHandle,
    pub(crate) at: Location,
}

impl<T> Pending<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// Those of the work.
    pub fn wait(self) -> Result<T> {
        self.result.recv().unwrap_or_else(|_| Err(self.lost()))
    }

    /// Waits for it no longer than `time`; none if it is still on its way then.
    pub fn wait_for(&self, time: Duration) -> Option<Result<T>> {
        match self.result.recv_timeout(time) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(self.lost())),
        }
    }

    /// The result, if it is there.
    pub fn take(&self) -> Option<Result<T>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(self.lost())),
        }
    }

    /// The object.
    pub fn location(&self) -> &Location {
        &self.at
    }

    fn lost(&self) -> Error {
        Error::Unavailable { at: self.at.clone(), problem: "the work on it was given up".into() }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
