//! Measurements against the best other implementations, on this machine.
//!
//! A [`duel`] is one of our worker processes against one of theirs: both do the
//! same work, which is checked before anything is timed, in rounds that
//! alternate. [`duels`] lists them, [`worker`] is our side, the folder `python`
//! theirs, and [`report`] and [`picture`] say how it went.

pub mod cli;
pub mod duel;
pub mod duels;
pub mod inputs;
pub mod machine;
pub mod memory;
pub mod peak;
pub mod picture;
mod progress;
pub mod protocol;
pub mod report;
pub mod scaling;
pub mod stats;
pub mod worker;
