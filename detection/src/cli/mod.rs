//! The commands of `detect`.
