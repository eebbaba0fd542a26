//! `cargo xtask setup`: after it, plain cargo commands work.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::libtorch::{self, Choice};
use crate::pins::{self, Use};
use crate::python::Environment;
use spark_build::{nccl, version};

use crate::{cargo_settings, install, places, process};

/// Which release of torch a command builds against.
#[derive(Debug, Clone, Default, Args)]
pub struct Torch {
    /// Release of torch, fetched if missing; the one set up if not given
    #[arg(long, value_name = "RELEASE")]
    pub torch: Option<String>,
}

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
    /// Its version, with the suffix of its build if it says so.
    pub version: String,
    /// The folder cargo builds into for this release.
    pub target: PathBuf,
}

impl Checkout {
    fn of(root: PathBuf, choice: Choice) -> Result<Self> {
        let folder = libtorch::locate(&choice)?;
        let version = libtorch::check_version(&folder)?;
        let release = version::release(&version);
        let base = places::target()?;
        let target = match cargo_settings::subfolder(release) {
            Some(name) => base.join(name),
            None => base,
        };
        let environment = Environment::of_release(release)?;
        Ok(Self { root, environment, choice, libtorch: folder, version, target })
    }

    /// libtorch's release, without the suffix of its build.
    pub fn release(&self) -> &str {
        version::release(&self.version)
    }

    /// Cargo, building against this libtorch, whatever plain cargo is told.
    pub fn cargo(&self) -> Command {
        let mut cargo = process::cargo(&self.root);
        cargo.envs(cargo_settings::variables(&self.root, &self.libtorch));
        cargo.env("CARGO_TARGET_DIR", &self.target);
        cargo
    }
}

impl fmt::Display for Checkout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "libtorch {} in {} ({})", self.version, self.libtorch.display(), self.choice)
    }
}

/// Fetches what is missing and says which libtorch it is. One that is `asked` for is built against
/// by the command that asks; any other by plain cargo, too.
pub fn run(purpose: Purpose, asked: &Torch) -> Result<Checkout> {
    let checkout = fetch(purpose, asked.torch.as_deref())?;
    if asked.torch.is_none() {
        keep(&checkout)?;
    }
    Ok(checkout)
}

/// As [`run`]; plain cargo builds against one that is asked for, too.
pub fn choose(asked: &Torch) -> Result<Checkout> {
    let checkout = fetch(Purpose::Build, asked.torch.as_deref())?;
    keep(&checkout)?;
    Ok(checkout)
}

fn keep(checkout: &Checkout) -> Result<()> {
    let Checkout { root, libtorch, target, .. } = checkout;
    cargo_settings::write(root, libtorch, checkout.release(), target)
}

fn fetch(purpose: Purpose, asked: Option<&str>) -> Result<Checkout> {
    let root = places::root()?;
    let choice = libtorch::choose(&root, asked)?;
    if let Choice::Cache(release) = &choice {
        let environment = Environment::of_release(release)?;
        install::ensure(&environment, &pins::needed_for(&[Use::Libtorch], release)?)?;
    }
    let checkout = Checkout::of(root, choice)?;
    println!("{checkout}");

    let packages = packages_for(&checkout.choice, purpose);
    install::ensure(&checkout.environment, &pins::needed_for(packages, checkout.release())?)
        .context("libtorch is set up and `cargo build` works, but Python packages are missing")?;
    println!("Python packages in {}", checkout.environment.root().display());
    Ok(checkout)
}

/// Fetches the headers that building with the feature `nccl` needs, unless
/// there are headers of the user's own, and says where they lie.
pub fn nccl(checkout: &Checkout) -> Result<()> {
    let folder = &checkout.libtorch;
    if !libtorch::has_cuda(folder) {
        bail!(
            "the libtorch in {} is a CPU build, which has no NCCL: export LIBTORCH with a CUDA \
             build",
            folder.display()
        );
    }
    if checkout.choice.is_cache() && nccl::own_list().is_none() {
        let version = &checkout.version;
        if !fits_pinned_headers(version) {
            bail!(
                "libtorch {version} was built for another CUDA than the pinned headers are of, \
                 {CUDA}: export {} with the folders of NCCL's and that CUDA's headers, colon \
                 separated",
                nccl::VARIABLE
            );
        }
        install::ensure(
            &checkout.environment,
            &pins::needed_for(&[Use::Nccl], checkout.release())?,
        )?;
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
        (Choice::Cache(_), _) | (_, Purpose::Test) => {
            &[Use::Libtorch, Use::Demo, Use::Test, Use::Wheel]
        }
        // torchrun is in torch's wheel.
        (Choice::ActivePython, Purpose::Launch) => &[],
        (_, Purpose::Launch) => &[Use::Libtorch],
        (_, Purpose::Build) => &[Use::Demo],
        (_, Purpose::Wheel) => &[Use::Wheel],
    }
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
        assert!(packages_for(&Choice::Cache("2.13.0".into()), Purpose::Build).contains(&Use::Test));
        for choice in [own, Choice::ActivePython, Choice::Cache("2.13.0".into())] {
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
        let pins = pins::needed_for(&[Use::Nccl], version::DEFAULT).unwrap();
        let prefix = format!("{CUDA}.");
        assert!(!pins.is_empty() && pins.iter().all(|pin| pin.version.starts_with(&prefix)));
    }
}
