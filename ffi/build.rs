//! Compiles the C++ side and links the shared library to libtorch.

use spark_build::libtorch;

/// The files whose change asks for compiling the C++ side again.
const SOURCES: [&str; 6] = [
    "src/bridge.rs",
    "src/bridge.hpp",
    "src/bridge.cpp",
    "src/torchbind.cpp",
    "include/spark_backbone.h",
    "include/spark/backbone.hpp",
];

fn main() {
    let Some(lib) = libtorch::locate() else { return };
    // Where it finds libtorch, besides in the process it is loaded into:
    // beside the torch package, should it lie in a Python package, or where it
    // was at build time. CUDA is the host's to bring: a library that asked for
    // it could not be loaded where libtorch has none.
    for argument in libtorch::rpaths(&lib) {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }

    // By this name programs ask for it; without one, those linked by path would
    // hold the path.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libspark_backbone.so");

    // Tests and examples are programs.
    for kind in ["tests", "examples"] {
        for argument in libtorch::rpath(&lib) {
            println!("cargo::rustc-link-arg-{kind}={argument}");
        }
    }

    if libtorch::is_linted() {
        return;
    }
    let mut build = cxx_build::bridge("src/bridge.rs");
    build.std("c++20").include("include").files(["src/bridge.cpp", "src/torchbind.cpp"]);
    build.flags(libtorch::include_flags(&lib));
    // Not as errors: a user's compiler may know warnings that ours doesn't. GCC 12
    // takes libtorch's inlined reference counts for overflows when it optimises.
    build.warnings(true).extra_warnings(true).flag_if_supported("-Wno-stringop-overflow");
    build.compile("spark_bridge");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
}
