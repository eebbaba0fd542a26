//! What the build script of every crate with a binary, test, example or
//! shared library does: check libtorch's version and link to it so that
//! nothing needs `LD_LIBRARY_PATH`, and nothing in it is loaded instead.
//!
//! Linker arguments do not pass from a crate to those that use it, so each
//! crate has a `build.rs` that calls it, and a direct dependency on `torch-sys`, which alone makes cargo tell it where libtorch lies.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::version;

/// Prints cargo's instructions for a crate that makes programs; gives the folder of libtorch's
/// libraries. What libtorch has for CUDA is not linked: programs load it where there is a driver.
pub fn configure() -> Option<PathBuf> {
    let lib = locate()?;
    for argument in rpaths(&lib) {
        println!("cargo::rustc-link-arg={argument}");
    }
    Some(lib)
}

/// Where what lies in a Python package, in a folder of its torch's release, finds libtorch: beside
/// the package.
pub const BESIDE: &str = "$ORIGIN/../../torch/lib";

/// What has the linker look for libtorch in a Python package's place ([`BESIDE`]) and in `lib`.
pub fn rpaths(lib: &Path) -> impl Iterator<Item = String> {
    [Path::new(BESIDE), lib].map(rpath).into_iter().flatten()
}

/// What has the linker write `folder` into what it links, as a place where libraries are
/// looked for first: DT_RPATH. DT_RUNPATH, which linkers write by themselves, comes after
/// `LD_LIBRARY_PATH`, where another libtorch may lie.
pub fn rpath(folder: &Path) -> [String; 2] {
    ["-Wl,--disable-new-dtags".into(), format!("-Wl,-rpath,{}", folder.display())]
}

/// As [`configure`], for a crate with a C++ side, but none where clippy looks at it: nothing is
/// linked then, so that the C++ side, minutes of work, need not be compiled.
pub fn configure_with_cpp() -> Option<PathBuf> {
    configure().filter(|_| !is_linted())
}

/// Whether clippy looks at the crate: see [`configure_with_cpp`].
pub fn is_linted() -> bool {
    let wrapper = env::var_os("RUSTC_WORKSPACE_WRAPPER").map(PathBuf::from);
    wrapper.is_some_and(|path| path.file_stem().is_some_and(|name| name == "clippy-driver"))
}

/// The folder of libtorch's libraries, if its version is one of those taken;
/// otherwise cargo has been told.
pub fn locate() -> Option<PathBuf> {
    println!("cargo::rerun-if-changed=build.rs");

    // The build script of torch-sys sets it wherever it links a libtorch.
    let lib = env::var_os("DEP_TCH_LIBTORCH_LIB")?;
    // A link may point elsewhere tomorrow; a binary keeps
    // the libtorch it was built against.
    let lib = match fs::canonicalize(&lib) {
        Ok(lib) => lib,
        Err(error) => {
            let lib = Path::new(&lib).display();
            println!(
                "cargo::error=libtorch's folder {lib} cannot be opened ({error}): run `cargo xtask setup`"
            );
            return None;
        }
    };
    // A libtorch whose libraries and headers are installed apart has no folder
    // to look into, but headers that say which it is.
    let include = include_folder(&lib);
    let root = lib.parent().unwrap_or(&lib);
    let root = if version::find(root).is_some() { root } else { include.parent().unwrap_or(root) };
    if let Some((_, file)) = version::find(root) {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    match version::check(root) {
        Ok(version) => {
            let release = version::release(&version);
            println!("cargo::rustc-env=SPARK_LIBTORCH_VERSION={release}");
            // Tests of networks from `.pt2` files have torch write them.
            println!("cargo::rustc-check-cfg=cfg(torch_writes_pt2)");
            if version::writes_pt2(release) {
                println!("cargo::rustc-cfg=torch_writes_pt2");
            }
        }
        Err(problem) => {
            println!("cargo::error={problem}");
            return None;
        }
    }

    // For tests that compile programs against it.
    println!("cargo::rustc-env=SPARK_LIBTORCH_LIB={}", lib.display());
    println!("cargo::rustc-env=SPARK_LIBTORCH_INCLUDE={}", include.display());
    Some(lib)
}

/// Files that each include a share of the C++ files `sources`, of this crate's folder, to compile in
/// their place: libtorch's headers take longer to read than most of the files to compile.
pub fn combined<'a>(sources: impl IntoIterator<Item = &'a Path>) -> io::Result<Vec<PathBuf>> {
    let folder = |name| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let (root, out) = (folder("CARGO_MANIFEST_DIR"), folder("OUT_DIR"));
    let mut texts = vec![String::new(); COMPILERS];
    for (number, source) in sources.into_iter().enumerate() {
        let line = format!("#include {:?}\n", root.join(source));
        texts[number % COMPILERS].push_str(&line);
    }
    let write = |(number, text): (usize, String)| {
        let file = out.join(format!("combined_{number}.cpp"));
        fs::write(&file, text).map(|()| file)
    };
    texts.into_iter().enumerate().map(write).collect()
}

/// Compilers that [`combined`] keeps busy.
const COMPILERS: usize = 2;

/// What has the compiler find libtorch's headers, given the folder of its libraries. Not as
/// folders of our own: the compiler warns of nothing in system headers.
pub fn include_flags(lib: &Path) -> [OsString; 4] {
    let include = include_folder(lib);
    let api = include.join("torch/csrc/api/include");
    ["-isystem".into(), api.into(), "-isystem".into(), include.into()]
}

/// The folder of libtorch's headers, given that of its libraries.
pub fn include_folder(lib: &Path) -> PathBuf {
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    root.or_else(|| lib.parent().map(Path::to_owned)).unwrap_or_default().join("include")
}
