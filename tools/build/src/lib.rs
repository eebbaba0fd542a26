//! What the build scripts and `xtask` share: which libtorch is there, whether it is the one that
//! is needed, how a program is linked to it, and where NCCL's headers are.

pub mod libtorch;
pub mod nccl;
pub mod version;
