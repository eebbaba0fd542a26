//! Values of any type between processes, and errors that all must hear of.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use super::ProcessGroup;
use crate::bridge::borrow;
use crate::{Error, Result};
use data::{Failure, Peers, gather_results, result_of_first};

impl ProcessGroup {
    /// Everybody's value, by rank.
    ///
    /// # Errors
    /// [`Error::Distributed`]; [`Error::Input`] for a value that JSON cannot hold.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let unsendable = |error: serde_json::Error| {
            Error::invalid("a value to send", "no JSON", error.to_string())
        };
        let bytes = serde_json::to_vec(value).map_err(unsendable)?;
        let all = self.gather_bytes(&bytes)?;
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(unsendable)).collect()
    }

    /// Everybody's bytes, by rank.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.is_alone() {
            return Ok(vec![bytes.to_vec()]);
        }
        let lengths = self.gather_equal(&Tensor::from(bytes.len() as i64))?;
        let lengths = Vec::<i64>::try_from(lengths).map_err(backbone::Error::from)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); self.size()]);
        }
        let padded = Tensor::zeros([longest], (Kind::Uint8, tch::Device::Cpu));
        padded.narrow(0, 0, bytes.len() as i64).copy_(&Tensor::from_slice(bytes));
        let all = self.gather_equal(&padded)?;
        let of_rank = |(rank, length): (i64, &i64)| {
            let row = all.select(0, rank).narrow(0, 0, *length);
            Vec::<u8>::try_from(row).map_err(|error| Error::from(backbone::Error::from(error)))
        };
        (0..).zip(&lengths).map(of_rank).collect()
    }

    /// Rank 0's bytes, on all; those of the others are left aside.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn bytes_of_main(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        if self.is_alone() {
            return Ok(bytes.to_vec());
        }
        let own = if self.is_main() { bytes } else { &[] };
        let length = Tensor::from_slice(&[own.len() as i64]);
        self.send_from_main(&length)?;
        let length = length.int64_value(&[0]);
        let sent = match self.is_main() {
            true => Tensor::from_slice(own),
            false => Tensor::zeros([length], (Kind::Uint8, tch::Device::Cpu)),
        };
        if length > 0 {
            self.send_from_main(&sent)?;
        }
        Vec::<u8>::try_from(sent).map_err(|error| backbone::Error::from(error).into())
    }

    fn send_from_main(&self, tensor: &Tensor) -> Result<()> {
        self.operate("sending a value", |group| group.broadcast(borrow(tensor)))
    }

    /// What rank 0 makes of `make`, on all; the others do not run it.
    ///
    /// # Errors
    /// Those of `make`, on all; [`Error::Distributed`].
    pub fn broadcast_from_rank0<T, E>(
        &self,
        make: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error> + Display,
    {
        if self.is_alone() {
            return make();
        }
        let made = self.is_main().then(make).transpose();
        let sent = match &made {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(made)) => serde_json::to_vec(made).map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:#}")),
        };
        let received = result_of_first(self, sent);
        if let Some(made) = made? {
            return Ok(made);
        }
        serde_json::from_slice(&received.map_err(of_peers)?)
            .map_err(|error| Error::Distributed(format!("rank 0 sent no value: {error}")).into())
    }

    /// `result`, if it is good on all processes.
    ///
    /// # Errors
    /// This process's own error, or another's.
    pub fn all_ok<T, E>(&self, result: std::result::Result<T, E>) -> std::result::Result<T, E>
    where
        E: From<Error> + Display,
    {
        if self.is_alone() {
            return result;
        }
        let own = result.as_ref().map(|_| Vec::new()).map_err(|error| format!("{error:#}"));
        let all = gather_results(self, own);
        // Its own error says more than that of others, or that they are gone.
        let value = result?;
        all.map(|_| value).map_err(|failure| of_peers(failure).into())
    }
}

/// What has failed on another process, or between them.
fn of_peers(failure: Failure) -> Error {
    match failure {
        Failure::At { rank, text } => Error::Elsewhere { rank, text },
        Failure::Connection(error) => Error::Distributed(error.to_string()),
    }
}

impl Peers for ProcessGroup {
    fn rank(&self) -> usize {
        ProcessGroup::rank(self)
    }

    fn size(&self) -> usize {
        ProcessGroup::size(self)
    }

    fn gather(&self, own: Vec<u8>) -> data::Result<Vec<Vec<u8>>> {
        self.gather_bytes(&own).map_err(unreached)
    }

    fn of_first(&self, own: Vec<u8>) -> data::Result<Vec<u8>> {
        self.bytes_of_main(&own).map_err(unreached)
    }
}

/// What connects the processes has failed, as readers of data are told.
fn unreached(error: Error) -> data::Error {
    data::Error::Data(error.to_string())
}
