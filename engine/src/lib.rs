//! What every trainer needs, and no more: data, random streams, and errors.

pub mod data;
mod error;
pub mod rng;

pub use error::{Error, Result};
