//! What the tests of several crates share: a folder that a program works in, several processes
//! that train together, and the Python that has the reference implementations.
#![allow(missing_docs)]

mod board;
mod browser;
mod first_form;
mod presets;
mod processes;
mod program;
mod promises;
mod python;
mod stored;

pub use board::*;
pub use browser::*;
pub use first_form::*;
pub use presets::*;
pub use processes::*;
pub use program::*;
pub use promises::*;
pub use python::*;
pub use stored::*;
