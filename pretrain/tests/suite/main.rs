//! What `pretrain` does, as a user sees it.

mod auto;
mod commands;
mod common;
mod distributed;
mod distributed_faults;
mod distributed_launch;
mod execution;
mod features;
mod former;
#[cfg(torch_writes_pt2)]
mod from_file;
#[cfg(torch_writes_pt2)]
mod graph;
mod hub;
mod kinds_of_run;
mod playground;
mod refusals;
mod resume;
mod shards;
mod storage;
mod training;
