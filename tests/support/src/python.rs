//! The Python that has the reference implementations, and how to run a script
//! with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use backbone::plugin::LIBTORCH_VERSION;

use super::program::Workplace;

/// The minor version of the libtorch in use: 13 of 2.13.0.
///
/// # Panics
/// When it has none.
pub fn libtorch_minor() -> u32 {
    let minor = LIBTORCH_VERSION.split('.').nth(1).and_then(|minor| minor.parse().ok());
    minor.expect("a version")
}

/// The Python that has torch, timm and torchvision: `SPARK_PYTHON`, or the one
/// that `cargo xtask setup` installs.
pub fn python() -> PathBuf {
    if let Some(given) = std::env::var_os("SPARK_PYTHON") {
        return given.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache.or_else(home).unwrap_or_default();
    cache.join(format!("spark-backbone/torch-{LIBTORCH_VERSION}/bin/python"))
}

/// Runs `tests/python/SCRIPT` with `arguments` and returns what it prints.
///
/// # Panics
/// When the script fails, with what it wrote to standard error; when there is
/// no such Python, with how to get one.
pub fn run_python(script: &str, arguments: &[&Path]) -> String {
    let python = python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python").join(script);
    let output =
        Command::new(&python).arg(&script).args(arguments).output().unwrap_or_else(|error| {
            panic!(
                "{}: {error}. Run `cargo xtask setup`, or point SPARK_PYTHON to a Python \
                 with torch, timm and torchvision",
                python.display()
            )
        });
    assert!(
        output.status.success(),
        "{} failed ({}):\n{}",
        script.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes networks of `tests/python/graph_networks.py` into the folder: NAME.pt2, and other weights
/// as NAME.safetensors.
pub fn make_networks(work: &Workplace, names: &[&str]) {
    let folder = work.path("");
    let mut arguments = vec![Path::new("make"), &folder];
    arguments.extend(names.iter().map(Path::new));
    run_python("graph_networks.py", &arguments);
}
