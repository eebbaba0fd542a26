//! The training loop of `detect train`.
