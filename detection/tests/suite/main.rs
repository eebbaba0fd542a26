//! The detector and what `detect` does, as a user sees it.

mod auto;
mod commands;
mod common;
mod data_files;
mod data_loader;
mod demo_training;
mod detector;
mod distributed;
mod evaluation;
mod former;
#[cfg(torch_writes_pt2)]
mod from_file;
mod pictures;
mod playground;
mod refusals;
mod resume;
mod storage;
mod training;
