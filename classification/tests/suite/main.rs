//! What `classify` does, as a user sees it.

mod auto;
mod commands;
mod common;
mod distributed;
mod former;
#[cfg(torch_writes_pt2)]
mod from_file;
mod playground;
mod refusals;
mod resume;
mod storage;
mod training;
