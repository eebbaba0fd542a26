//! Compiles the C++ side (training on several processes, recording operator calls, LAMB,
//! norms, the allocator), and links this crate's tests, examples and binaries to libtorch.

use std::env;
use std::path::Path;

use spark_build::{libtorch, nccl};

/// The folder of what runs on several processes.
const SOURCES: &str = "src/distributed/c10d";

fn main() {
    let Some(lib) = libtorch::configure_with_cpp() else { return };
    let sources = Path::new(SOURCES);
    let mut build = cxx_build::bridge("src/bridge.rs");
    build.std("c++20").include(sources);
    build.files(["group.cpp", "reducer.cpp", "sync_norm.cpp"].map(|file| sources.join(file)));
    build.files(
        ["allocator/allocator", "allocator/pool", "operators/record", "optim/lamb", "optim/norm"]
            .map(|file| format!("src/{file}.cpp")),
    );
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
