//! `cargo xtask gpu-check`: a bundle that checks everything on a machine with CUDA and any torch
//! of the releases it carries.

mod archive;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use spark_build::version;

use crate::library::Profile;
use crate::setup::{self, Checkout, Purpose};
use crate::{carried, files, places, process, wheel};

/// The programs of each release.
const PROGRAMS: [&str; 4] = ["gpu-check", "pretrain", "classify", "detect"];

/// The opponent's scripts, which lie in `python` beside the programs' folders.
const SCRIPTS: [&str; 3] = [
    "tools/gpu_check/python/opponent.py",
    "tools/bench/python/spark.py",
    "tools/bench/python/masked.py",
];

/// The folder that the archive unpacks into.
const ROOT: &str = "spark-gpu-check";

/// What runs it there.
const RUN: &str = include_str!("run.sh");

/// The largest archive, which mail and chat still take.
const MOST_BYTES: u64 = 60 << 20;

/// Builds the programs for each of `releases`, and the archive that carries them; where it lies. It
/// replaces an older one only when it is whole.
pub fn run(releases: &[String], profile: Profile, output: Option<&Path>) -> Result<PathBuf> {
    let output = match output {
        // Relative to where the user typed the command.
        Some(file) => env::current_dir()?.join(file),
        None => places::target()?.join(format!("{ROOT}.tar.gz")),
    };
    check_output(&output)?;
    let mut files = Vec::new();
    let staging = tempfile::tempdir().context("no folder can be made to gather the files in")?;
    let mut glibc = None;
    for torch in wheel::asked(releases)? {
        let checkout = setup::run(Purpose::Build, &torch)?;
        if files.is_empty() {
            files.extend(common(&checkout.root, staging.path())?);
        }
        let folder = format!("torch-{}", version::series(checkout.release()));
        for file in programs(&checkout, profile)? {
            let name = file.file_name().context("a program without a name")?;
            let copy = staging.path().join(&folder).join(name);
            carry(&file, &copy)?;
            glibc = glibc.max(carried::glibc(&copy)?);
            files.push((Path::new(&folder).join(name), copy));
        }
    }
    let bytes = archive::write(&output, ROOT, &files, MOST_BYTES)?;
    println!("bundle {} ({:.1} MiB)", output.display(), bytes as f64 / f64::from(1 << 20));
    if let Some(minor) = glibc {
        println!("it runs with glibc 2.{minor} or newer");
    }
    println!("there:  tar xzf {ROOT}.tar.gz && {ROOT}/run.sh");
    Ok(output)
}

/// Refuses what cannot become a file before minutes go into the build.
fn check_output(output: &Path) -> Result<()> {
    if output.is_dir() {
        bail!("--output is {}, but that is a folder: name a file", output.display());
    }
    match output.parent() {
        Some(folder) if folder.is_dir() => Ok(()),
        _ => bail!("--output is {}, but there is no such folder", output.display()),
    }
}

/// What is carried once: what runs it, the opponent's scripts, and the licence.
fn common(root: &Path, staging: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let run = staging.join("run.sh");
    files::write(&run, RUN)?;
    make_executable(&run)?;
    let scripts = SCRIPTS.map(|script| {
        let name = Path::new(script).file_name().unwrap_or_default();
        (Path::new("python").join(name), root.join(script))
    });
    let mut files = vec![
        (PathBuf::from("run.sh"), run),
        (PathBuf::from("LICENSE"), root.join("LICENSE")),
        (PathBuf::from("README.md"), root.join("docs/gpu.md")),
    ];
    files.extend(scripts);
    Ok(files)
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

/// Builds the programs in `checkout`, with NCCL if its headers are there or can be had.
fn programs(checkout: &Checkout, profile: Profile) -> Result<Vec<PathBuf>> {
    let mut cargo = checkout.cargo();
    // All programs, as README's build line has it: a part of them would be built with other
    // features of the dependencies, and those then a second time.
    cargo.args(["build", "--workspace", "--bins", "--profile", profile.name()]);
    match setup::nccl(checkout) {
        Ok(()) => {
            cargo.args(["--features", "nccl"]);
        }
        Err(problem) => {
            eprintln!(
                "note: without NCCL, so that the section `distributed` will be skipped: {problem:#}"
            );
        }
    }
    process::run(&mut cargo)?;
    Ok(PROGRAMS.map(|name| checkout.target.join(profile.folder()).join(name)).into())
}

/// A copy of `file` that knows nothing of this machine and has no symbols for debuggers.
fn carry(file: &Path, copy: &Path) -> Result<()> {
    files::make_folder(copy.parent().context("a program without a folder")?)?;
    files::copy(file, copy)?;
    carried::forget_builder(copy)?;
    carried::strip(copy);
    Ok(())
}

#[cfg(test)]
mod tests;
