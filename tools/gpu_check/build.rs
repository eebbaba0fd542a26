//! Links this crate's tests, examples and binaries to libtorch.

use spark_build::libtorch;

fn main() {
    libtorch::configure();
}
