//! What `classify` does, as a user sees it.

mod commands;
mod distributed;
mod refusals;
mod resume;
