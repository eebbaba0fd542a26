//! Checks of everything on a CUDA device against the processor, and measurements there.
//!
//! [`cli`] starts each of the [`sections`] as a process of its own ([`runner`]), so that one that
//! crashes or hangs costs no other; what it finds comes back as lines of JSON ([`recorder`]) and
//! goes into a [`report`]. With `--device cpu` the same code compares the processor with itself.

pub mod cli;
pub mod compare;
pub mod facts;
pub mod measured;
pub mod outcome;
pub mod programs;
pub mod recorder;
pub mod report;
pub mod runner;
pub mod sections;
