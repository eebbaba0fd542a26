//! `torch.export`'s archives, `.pt2`: a network's graph with its weights.

mod program;

pub use program::{Input, Node, Output, Program, Source, TensorMeta, Value};
