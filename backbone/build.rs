//! Compiles the kernels, and links this crate's tests, examples and binaries to libtorch.

use std::path::{Path, PathBuf};

use spark_build::libtorch;

/// The folder of the kernels.
const SOURCES: &str = "src/kernels";
/// The folder of the bridge to libtorch's dispatcher.
const GRAPH: &str = "src/graph";

fn main() {
    let Some(lib) = libtorch::configure_with_cpp() else { return };
    let sources = Path::new(SOURCES);
    let operator = Path::new(GRAPH).join("operator");
    let mut build = cxx_build::bridges([sources.join("mod.rs"), operator.with_extension("rs")]);
    build.std("c++20");
    // The largest first, so that both halves take about as long.
    let kernels = [
        "linear",
        "rows",
        "conv",
        "norm",
        "depthwise",
        "up_conv",
        "bf16_grad",
        "recompute",
        "layout",
        "lacking",
    ];
    let files = kernels.map(|kernel| sources.join(kernel).with_extension("cpp"));
    let operator_file = operator.with_extension("cpp");
    let files = files.iter().chain([&operator_file]).map(PathBuf::as_path);
    build.files(libtorch::combined(files).expect("cargo's folder for outputs can be written"));
    build.flags(libtorch::include_flags(&lib));
    // In every profile: what training costs is spent here. Wide vectors cross no call, so that the
    // compiler's note on how they would be passed says nothing.
    build
        .opt_level(3)
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-fno-trapping-math")
        .flag_if_supported("-Wno-psabi");
    // Not as errors: a user's compiler may know warnings that ours doesn't.
    build.warnings(true).extra_warnings(true);
    build.compile("spark_kernels");
    println!("cargo::rerun-if-changed={SOURCES}");
    for extension in ["rs", "cpp", "hpp"] {
        println!("cargo::rerun-if-changed={}", operator.with_extension(extension).display());
    }
}
