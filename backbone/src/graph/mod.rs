//! Networks read from `torch.export`'s `.pt2` files.
//!
//! A file's graph is put into single-assignment form (`ssa`); `axes` and `rules` find what
//! the axes of every value are, and whether each operator has a meaning on visible patches;
//! `stages` finds the pyramid; `lower` makes steps of the operators that it needs, which
//! `run` carries out on any kind of feature map.

mod analyse;
mod axes;
mod describe;
mod geometry;
mod lower;
mod model;
mod network;
mod operator;
mod rules;
mod run;
mod ssa;
mod stages;
mod verify;

pub use model::{GraphModel, WholeNetwork};
