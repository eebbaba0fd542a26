//! Links this crate's tests, examples and binaries to libtorch.

#[path = "../build/libtorch.rs"]
mod libtorch;

fn main() {
    libtorch::configure();
}
