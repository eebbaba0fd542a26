//! What the tests of several crates share: a folder that a program works in, several processes
//! that train together, and the Python that has the reference implementations.
#![allow(missing_docs)]

mod processes;
mod program;
mod python;

pub use processes::*;
pub use program::*;
pub use python::*;
