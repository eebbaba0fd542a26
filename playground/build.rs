//! Links this crate's tests to libtorch.

use spark_build::libtorch;

fn main() {
    libtorch::configure();
}
