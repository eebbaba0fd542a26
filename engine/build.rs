//! Compiles the C++ side (training on several processes, recording operator calls, LAMB,
//! norms, the allocator), and links this crate's tests, examples and binaries to libtorch.

use std::env;
use std::path::{Path, PathBuf};

use spark_build::{libtorch, nccl};

/// The folder of what runs on several processes.
const SOURCES: &str = "src/distributed/c10d";

fn main() {
    let Some(lib) = libtorch::configure_with_cpp() else { return };
    // Before torch-sys's libraries: what libtorch has for CUDA holds a copy of gloo, and a program
    // that took it from there could not start without loading that.
    println!("cargo::rustc-link-lib=dylib=torch_cpu");
    let sources = Path::new(SOURCES);
    let mut build = cxx_build::bridge("src/bridge.rs");
    build.std("c++20").include(sources);
    let files = [
        "distributed/c10d/group.cpp",
        "distributed/c10d/reducer.cpp",
        "operators/record.cpp",
        "distributed/c10d/sync_norm.cpp",
        "optim/lamb.cpp",
        "optim/norm.cpp",
        "allocator/allocator.cpp",
        "allocator/pool.cpp",
    ]
    .map(|file| Path::new("src").join(file));
    let files = libtorch::combined(files.iter().map(PathBuf::as_path));
    build.files(files.expect("cargo's folder for outputs can be written"));
    // For the headers of backbone's kernels.
    build.include("..");
    build.define("USE_C10D_GLOO", None);
    build.flags(libtorch::include_flags(&lib));
    println!("cargo::rerun-if-env-changed={}", nccl::VARIABLE);
    if env::var_os("CARGO_FEATURE_NCCL").is_some() {
        match nccl::include_folders(&lib) {
            Err(problem) => return println!("cargo::error={problem}"),
            Ok(folders) => {
                build.define("USE_C10D_NCCL", None);
                for folder in folders {
                    build.flag("-isystem").flag(folder);
                }
            }
        }
    }
    // In every profile: each step passes through all parameters.
    build.opt_level(3).flag_if_supported("-fno-math-errno").flag_if_supported("-fno-trapping-math");
    // Not as errors: a user's compiler may know warnings that ours doesn't.
    build.warnings(true).extra_warnings(true).flag_if_supported("-Wno-stringop-overflow");
    build.compile("spark_engine_bridge");
    println!("cargo::rerun-if-changed={SOURCES}");
    for path in ["src/allocator", "src/operators", "src/optim", "../backbone/src/kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-changed=src/bridge.rs");
}
