//! `cargo xtask test --frameworks`: backbones inside mmdet, and detectron2 where
//! there is one.
//!
//! The frameworks have an environment of their own in the cache folder, since
//! mmcv's operators take minutes to compile and want packages that nothing else
//! needs.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use crate::library::{Profile, Source};
use crate::pins::{Pin, Use};
use crate::python::Environment;
use crate::setup::{self, Checkout, Purpose, Torch};
use crate::{files, install, overlay, process, wheel};

/// Sets up, installs the frameworks if they are missing, and our wheel, and runs
/// `tests/python/frameworks_check.py`.
pub fn run(torch: &Torch) -> Result<()> {
    let checkout = setup::run(Purpose::Test, torch)?;
    let environment = environment(checkout.release())?;
    ensure(&checkout, &environment)?;
    let scratch = checkout.target.join("frameworks");
    let source = Source { profile: Profile::Dev, library: None };
    let built = wheel::build(&checkout, false, &source)?;
    let wheel = wheel::pack(&checkout, &[built], source.profile, Some(&scratch))?;
    overlay::install_wheel(&environment, &wheel)?;

    let mut check = Command::new(environment.python());
    check.arg(checkout.root.join("tests/python/frameworks_check.py")).arg(&scratch).arg("mmdet");
    if imports(&environment, "detectron2") {
        check.arg("detectron2");
    } else {
        println!(
            "detectron2 is left out: `{} -c 'import detectron2'` fails",
            environment.python().display()
        );
    }
    process::run(&mut check)
}

/// Where the frameworks are installed.
fn environment(release: &str) -> Result<Environment> {
    overlay::environment("frameworks", release)
}

/// Sees to it that `environment` holds the pinned frameworks.
fn ensure(checkout: &Checkout, environment: &Environment) -> Result<()> {
    let _lock = install::lock(environment)?;
    let missing = overlay::missing(checkout, environment, Use::Frameworks)?;
    // What is compiled comes after what compiling needs.
    let (compiled, plain): (Vec<Pin>, Vec<Pin>) =
        missing.into_iter().partition(|pin| pin.name.starts_with("onedl-mm"));
    for pins in [plain, compiled] {
        if !pins.is_empty() {
            // Not what they need in turn: all of that is pinned, but for windows
            // to show pictures in, which a server lacks.
            let mut pip = overlay::pip_pinned(environment, &pins);
            pip.arg("--no-build-isolation");
            for (name, value) in compile_settings(checkout, environment)? {
                pip.env(name, value);
            }
            process::run(&mut pip).context("pip could not install the frameworks")?;
        }
    }
    Ok(())
}

/// Environment variables for compiling mmcv's operators, for the CPU and as fast
/// as can be: every core, hardly any optimisation, and libtorch's headers
/// compiled once instead of 78 times.
fn compile_settings(
    checkout: &Checkout,
    environment: &Environment,
) -> Result<Vec<(&'static str, OsString)>> {
    let header = precompiled_header(&checkout.libtorch, environment.root())?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let path = env::var_os("PATH").unwrap_or_default();
    // ninja, which runs the compilers side by side, is in the environment.
    let folders = [environment.root().join("bin")].into_iter().chain(env::split_paths(&path));
    Ok(vec![
        ("MMCV_WITH_OPS", "1".into()),
        ("CUDA_VISIBLE_DEVICES", "".into()),
        ("MAX_JOBS", jobs.to_string().into()),
        ("PATH", env::join_paths(folders)?),
        ("CFLAGS", format!("{COMPILER_FLAGS} -w -include {}", header.display()).into()),
    ])
}

/// Those that a precompiled header must share with what includes it.
const COMPILER_FLAGS: &str = "-O1 -g0";

/// What torch's build of extensions adds to them.
const EXTENSION_FLAGS: [&str; 4] =
    ["-fPIC", "-std=c++17", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"];

/// A header that includes libtorch's, compiled beside it; a compiler that cannot
/// use what was compiled takes the header as it is.
fn precompiled_header(libtorch: &Path, folder: &Path) -> Result<PathBuf> {
    let header = folder.join("torch_types.h");
    files::write(&header, "#include <torch/types.h>\n")?;
    let include = libtorch.join("include");
    let mut compiler = Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    compiler.args(COMPILER_FLAGS.split(' ')).args(EXTENSION_FLAGS).arg("-w");
    compiler.arg("-I").arg(&include).arg("-I").arg(include.join("torch/csrc/api/include"));
    compiler.args(["-x", "c++-header"]).arg(&header);
    process::run(compiler.arg("-o").arg(header.with_added_extension("gch")))?;
    Ok(header)
}

fn imports(environment: &Environment, package: &str) -> bool {
    let script = format!("import {package}");
    process::read(Command::new(environment.python()).args(["-c", &script])).is_ok()
}

#[cfg(test)]
mod tests {
    use spark_build::version;

    use super::*;
    use crate::pins;

    #[test]
    fn every_framework_is_pinned_and_what_compiles_it_is_too() {
        let pins = pins::needed_for(&[Use::Frameworks], version::DEFAULT).unwrap();
        for name in ["onedl-mmdetection", "onedl-mmcv", "onedl-mmengine", "ninja"] {
            assert!(pins.iter().any(|pin| pin.name == name), "{name}");
        }
    }

    #[test]
    fn the_environment_is_not_the_shared_one() {
        let shared = Environment::of_release(version::DEFAULT).unwrap();
        let own = environment(version::DEFAULT).unwrap();
        assert_ne!(own.root(), shared.root());
        assert_eq!(own.root().parent(), shared.root().parent());
    }
}
