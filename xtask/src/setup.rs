//! `cargo xtask setup`: after it, plain cargo commands work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::libtorch::{self, Choice};
use crate::pins::{self, Use};
use crate::python::Environment;
use crate::{install, places, process};

/// What the set-up is for, which decides which Python packages it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building and the demo.
    Build,
    /// Running the tests.
    Test,
    /// Packing the Python package.
    Wheel,
}

/// A checkout that is set up.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The repository's root.
    pub root: PathBuf,
    /// The Python environment in the cache folder.
    pub environment: Environment,
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
    Ok(Checkout { root, environment })
}

/// Which packages to install. A user who brings a libtorch is spared the 5 GB
/// of torch's wheel until the tests, which compare with Python, need it.
pub fn packages_for(choice: &Choice, purpose: Purpose) -> &'static [Use] {
    match (choice, purpose) {
        (Choice::Cache, _) | (_, Purpose::Test) => {
            &[Use::Libtorch, Use::Demo, Use::Test, Use::Wheel]
        }
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
    fn a_libtorch_of_ones_own_needs_torchs_wheel_only_for_the_tests() {
        let own = Choice::Exported("/opt/libtorch".into());
        assert_eq!(packages_for(&own, Purpose::Build), [Use::Demo]);
        assert!(packages_for(&own, Purpose::Test).contains(&Use::Libtorch));
        assert_eq!(packages_for(&own, Purpose::Wheel), [Use::Wheel]);
        assert!(packages_for(&Choice::Cache, Purpose::Build).contains(&Use::Test));
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
