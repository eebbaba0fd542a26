//! What the tests that cross crates share.

pub mod rule;

use std::path::PathBuf;

/// The Python interpreter with PyTorch and timm that references run in: the
/// one named by `SPARK_PYTHON`, else the one that `cargo xtask setup` made in
/// the user's cache folder.
///
/// # Panics
/// Where neither the variable nor a home folder is set.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("SPARK_PYTHON") {
        return python.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("SPARK_PYTHON, XDG_CACHE_HOME or HOME is set");
        PathBuf::from(home).join(".cache")
    });
    cache.join("spark-backbone/torch-2.13.0/bin/python")
}
