//! `cargo xtask setup`: after it, plain cargo commands work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::libtorch::{self, Choice};
use crate::pins::{self, Use};
use crate::python::Environment;
use spark_build::{nccl, version};

use crate::{install, places, process};

/// What the set-up is for, which decides which Python packages it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building and the demo.
    Build,
    /// Running the tests.
    Test,
    /// Measuring against other implementations.
    Bench,
    /// Packing the Python package.
    Wheel,
    /// Running on several processes, which torchrun starts.
    Launch,
}

/// A checkout that is set up.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The repository's root.
    pub root: PathBuf,
    /// The Python environment in the cache folder.
    pub environment: Environment,
    /// What decided on the libtorch.
    pub choice: Choice,
    /// The folder with libtorch's `lib` and `include`.
    pub libtorch: PathBuf,
}

/// Fetches what is missing, links libtorch into the checkout and says which it
/// is.
///
/// # Errors
/// When something cannot be fetched, or the libtorch asked for is of the wrong
/// version.
pub fn run(purpose: Purpose) -> Result<Checkout> {
    let root = places::root()?;
    let environment = Environment::shared()?;
    let choice = libtorch::choose(&root, &environment)?;
    if choice == Choice::Cache {
        install::ensure(&environment, &pins::needed_for(&[Use::Libtorch])?)?;
    }
    let folder = libtorch::locate(&choice, &environment)?;
    let version = libtorch::check_version(&folder)?;
    link(&root, &folder)?;
    println!("libtorch {version} in {} ({choice})", folder.display());

    install::ensure(&environment, &pins::needed_for(packages_for(&choice, purpose))?)
        .context("libtorch is set up and `cargo build` works, but Python packages are missing")?;
    println!("Python packages in {}", environment.root().display());
    Ok(Checkout { root, environment, choice, libtorch: folder })
}

/// Fetches the headers that building with the feature `nccl` needs, unless
/// there are headers of the user's own, and says where they lie.
///
/// # Errors
/// When libtorch has no NCCL, or headers are missing that cannot be fetched.
pub fn nccl(checkout: &Checkout) -> Result<()> {
    let folder = &checkout.libtorch;
    if !libtorch::has_cuda(folder) {
        bail!(
            "the libtorch in {} is a CPU build, which has no NCCL: export LIBTORCH with a CUDA \
             build",
            folder.display()
        );
    }
    if checkout.choice == Choice::Cache && nccl::own_list().is_none() {
        let version = libtorch::check_version(folder)?;
        if !fits_pinned_headers(&version) {
            bail!(
                "libtorch {version} was built for another CUDA than the pinned headers are of, \
                 {CUDA}: export {} with the folders of NCCL's and that CUDA's headers, colon \
                 separated",
                nccl::VARIABLE
            );
        }
        install::ensure(&checkout.environment, &pins::needed_for(&[Use::Nccl])?)?;
    }
    let folders = nccl::include_folders(&folder.join("lib")).map_err(anyhow::Error::msg)?;
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    println!("NCCL's and CUDA's headers in {}", folders.join(", "));
    Ok(())
}

/// The release of CUDA that the pinned headers are of.
const CUDA: &str = "13.0";

/// Whether a libtorch of this version was built for [`CUDA`], as far as it says.
fn fits_pinned_headers(version: &str) -> bool {
    let build = version.strip_prefix(version::release(version)).unwrap_or_default();
    build.strip_prefix("+cu").is_none_or(|cuda| cuda == CUDA.replace('.', ""))
}

/// Which packages to install. A user who brings a libtorch is spared the 5 GB
/// of torch's wheel until the tests, which compare with Python, or torchrun need
/// it.
pub fn packages_for(choice: &Choice, purpose: Purpose) -> &'static [Use] {
    match (choice, purpose) {
        (_, Purpose::Bench) => &[Use::Libtorch, Use::Demo, Use::Test, Use::Bench],
        (Choice::Cache, _) | (_, Purpose::Test) => {
            &[Use::Libtorch, Use::Demo, Use::Test, Use::Wheel]
        }
        // torchrun is in torch's wheel.
        (Choice::ActivePython, Purpose::Launch) => &[],
        (_, Purpose::Launch) => &[Use::Libtorch],
        (_, Purpose::Build) => &[Use::Demo],
        (_, Purpose::Wheel) => &[Use::Wheel],
    }
}

/// Makes the link in `root` lead to `folder`.
fn link(root: &Path, folder: &Path) -> Result<()> {
    let link = root.join(libtorch::LINK);
    let old = fs::read_link(&link).ok();
    if old.as_deref() == Some(folder) {
        return Ok(());
    }
    // The user may have unpacked a libtorch in place of the link.
    if old.is_none() && link.exists() {
        if link.canonicalize().ok().as_deref() == Some(folder) {
            return Ok(());
        }
        bail!(
            "{} is not a link, and {} is to be linked there: move it away",
            link.display(),
            folder.display()
        );
    }
    // Renaming replaces the old link in one step, whatever happens meanwhile.
    let new = root.join(format!("{}.{}", libtorch::LINK, std::process::id()));
    symlink(folder, &new)
        .and_then(|()| fs::rename(&new, &link))
        .with_context(|| format!("cannot link {} to {}", link.display(), folder.display()))?;
    if old.is_some() {
        forget_old_libtorch(root)?;
    }
    Ok(())
}

/// Has cargo build torch-sys again: it notices another path, not another
/// target of the same link, and a build for CUDA asks the linker for libraries
/// that one for the CPU lacks.
fn forget_old_libtorch(root: &Path) -> Result<()> {
    for profile in ["dev", "release"] {
        let mut cargo = process::cargo(root);
        cargo.args(["clean", "--quiet", "--package", "torch-sys", "--profile", profile]);
        process::run(&mut cargo)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libtorch_of_ones_own_needs_torchs_wheel_only_for_tests_and_torchrun() {
        let own = Choice::Exported("/opt/libtorch".into());
        assert_eq!(packages_for(&own, Purpose::Build), [Use::Demo]);
        assert!(packages_for(&own, Purpose::Test).contains(&Use::Libtorch));
        assert_eq!(packages_for(&own, Purpose::Wheel), [Use::Wheel]);
        assert_eq!(packages_for(&own, Purpose::Launch), [Use::Libtorch]);
        assert!(packages_for(&Choice::ActivePython, Purpose::Launch).is_empty());
        assert!(packages_for(&Choice::Cache, Purpose::Build).contains(&Use::Test));
        for choice in [own, Choice::ActivePython, Choice::Cache] {
            assert!(packages_for(&choice, Purpose::Bench).contains(&Use::Bench));
            assert!(!packages_for(&choice, Purpose::Test).contains(&Use::Bench));
        }
    }

    #[test]
    fn headers_are_of_the_cuda_that_libtorch_was_built_for() {
        for version in ["2.13.0+cu130", "2.13.0"] {
            assert!(fits_pinned_headers(version), "{version}");
        }
        for version in ["2.13.0+cu128", "2.13.0+cu132"] {
            assert!(!fits_pinned_headers(version), "{version}");
        }
        let pins = pins::needed_for(&[Use::Nccl]).unwrap();
        let prefix = format!("{CUDA}.");
        assert!(!pins.is_empty() && pins.iter().all(|pin| pin.version.starts_with(&prefix)));
    }

    #[test]
    fn the_link_is_made_kept_and_never_put_over_a_folder() {
        let root = std::env::temp_dir().join(format!("xtask-link-{}", std::process::id()));
        let folder = root.join("torch");
        fs::create_dir_all(&folder).unwrap();
        link(&root, &folder).unwrap();
        link(&root, &folder).unwrap();
        assert_eq!(fs::read_link(root.join(libtorch::LINK)).unwrap(), folder);

        fs::remove_file(root.join(libtorch::LINK)).unwrap();
        fs::create_dir(root.join(libtorch::LINK)).unwrap();
        let error = link(&root, &folder).unwrap_err().to_string();
        fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("move it away"), "{error}");
    }
}
