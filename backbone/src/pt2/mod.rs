//! `torch.export`'s archives, `.pt2`: a network's graph with its weights.

mod archive;
mod container;
mod layout;
mod parse;
mod payload;
mod program;
mod trace;
mod wire;
mod write;

pub use archive::Archive;
pub(crate) use container::{Container, is_program};
pub(crate) use payload::{Payload, header, network, weights};
pub use program::{Input, Node, Output, Program, Source, TensorMeta, Value};

#[cfg(test)]
mod tests;
