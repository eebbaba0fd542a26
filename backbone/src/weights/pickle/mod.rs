//! Python pickles as data: a reader that builds a tree of nodes and calls
//! nothing, and an emitter for the few shapes that weight files need.
//! Reference: Python's `pickletools`.

mod emit;
mod machine;
mod opcode;
mod parse;
mod text;

pub(crate) use emit::Emitter;
pub(crate) use parse::{Id, Node, Pickle};
