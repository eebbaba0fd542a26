//! What `classify` does, as a user sees it.

mod commands;
mod common;
mod distributed;
mod former;
mod from_file;
mod refusals;
mod resume;
mod training;
