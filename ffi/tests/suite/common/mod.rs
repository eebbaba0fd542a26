//! What the tests of the shared library have in common: an installed tree, and
//! compilers that build programs against it.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Where the tests write; the same folder for all of this crate's.
pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A folder for one test, empty.
pub fn folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The folder of libtorch, without links in its path.
pub fn libtorch() -> PathBuf {
    let lib = Path::new(env!("SPARK_LIBTORCH_LIB"));
    lib.parent().expect("a folder with lib").to_owned()
}

/// The tree that `cargo xtask install` makes, made once.
pub fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let tree = scratch().join("tree");
        // Another test program may be at it.
        let lock = File::create(scratch().join("tree.lock")).unwrap();
        lock.lock().unwrap();
        let mut install = Command::new(env!("CARGO"));
        install.current_dir(root()).args(["xtask", "install", "--library"]);
        // The one that cargo built beside this test.
        install.arg(env::current_exe().unwrap().with_file_name("libspark_backbone.so"));
        succeed(install.arg("--prefix").arg(&tree));
        tree
    })
}

/// Runs `command` and returns what it prints.
///
/// # Panics
/// When it fails, with all it said.
pub fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?} ({}):\n{}", output.status, said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `command`, whatever comes of it, with the libraries that it was linked to:
/// cargo's search path comes before those, and may hold an older build of ours.
pub fn output(command: &mut Command) -> Output {
    command
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// Both streams of a program that ended.
pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream)).concat()
}

/// The program that `compiler` makes of `source` (in `tests/programs`), linked
/// to the tree's library, as `name` in the scratch folder.
pub fn compile(compiler: &str, arguments: &[&str], source: &str, name: &str) -> PathBuf {
    let program = scratch().join(name);
    let library = tree().join("lib");
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-O0", "-g"]).args(arguments);
    command.arg("-I").arg(tree().join("include"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(source));
    command.arg("-o").arg(&program);
    command.arg("-L").arg(&library).args(["-lspark_backbone", "-lm"]);
    command.arg(rpath(&library));
    if compiler == cxx() {
        // libtorch's headers are not ours to warn of.
        let torch = libtorch();
        for include in ["include/torch/csrc/api/include", "include"] {
            command.arg("-isystem").arg(torch.join(include));
        }
        command.arg("-L").arg(torch.join("lib")).arg(rpath(&torch.join("lib")));
        command.args(["-ltorch", "-ltorch_cpu", "-lc10", "-pthread"]);
    }
    succeed(&mut command);
    program
}

fn rpath(folder: &Path) -> String {
    format!("-Wl,-rpath,{}", folder.display())
}

/// The C compiler.
pub fn cc() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| env::var("CC").unwrap_or_else(|_| "cc".into()))
}

/// The C++ compiler.
pub fn cxx() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| env::var("CXX").unwrap_or_else(|_| "c++".into()))
}

/// Whether `program` can be started at all.
pub fn exists(program: impl AsRef<OsStr>) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The little-endian numbers in a file that a program wrote.
pub fn read_floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// Writes numbers for a program to read.
pub fn write_floats(path: &Path, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(path, bytes).unwrap();
}
