//! What the build script of every crate with a binary, test, example or
//! shared library does: check libtorch's version and link to it so that
//! nothing needs `LD_LIBRARY_PATH`.
//!
//! Linker arguments do not pass from a crate to those that use it, so each
//! crate has a `build.rs` that includes this file, and a direct dependency on
//! `torch-sys`, which alone makes cargo tell it where libtorch lies.

use std::env;
use std::fs;
use std::path::Path;

#[path = "version.rs"]
mod version;

/// Prints cargo's instructions for the crate being built.
pub fn configure() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../build");

    // The build script of torch-sys sets it wherever it links a libtorch.
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    // The link in the repository may point elsewhere tomorrow; a binary keeps
    // the libtorch it was built against.
    let lib = match fs::canonicalize(&lib) {
        Ok(lib) => lib,
        Err(error) => {
            let lib = Path::new(&lib).display();
            println!(
                "cargo::error=libtorch's folder {lib} cannot be opened ({error}): run `cargo xtask setup`"
            );
            return;
        }
    };
    // A libtorch whose libraries and headers are installed apart has no folder
    // to look into; its C++ interface was compiled against, which is a check.
    let root = lib.parent().unwrap_or(&lib);
    if let Some((_, file)) = version::find(root) {
        println!("cargo::rerun-if-changed={}", file.display());
        if let Err(problem) = version::check(root) {
            println!("cargo::error={problem}");
            return;
        }
    }

    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if lib.join("libtorch_cuda.so").exists() {
        // Its operators register themselves when it is loaded. No symbol of it
        // is named by our code, so a linker that drops unneeded libraries
        // would leave CUDA silently off.
        for argument in ["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"] {
            println!("cargo::rustc-link-arg={argument}");
        }
    }
}
