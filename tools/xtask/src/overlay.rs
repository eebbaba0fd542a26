//! Python environments in the cache folder that see the packages of the shared one, so that torch
//! is there once, and hold what one command needs besides.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::pins::{self, Pin, Use};
use crate::python::{ENVIRONMENT, Environment, Look};
use crate::setup::Checkout;
use crate::{files, places, process};

/// The one called `name`, for torch `release`.
pub fn environment(name: &str, release: &str) -> Result<Environment> {
    Ok(Environment::at(places::cache()?.join(format!("{name}-{ENVIRONMENT}{release}"))))
}

/// What `environment`, which is made if it is not there, lacks of the packages pinned for `purpose`.
pub fn missing(checkout: &Checkout, environment: &Environment, purpose: Use) -> Result<Vec<Pin>> {
    if !environment.has_pip() {
        create(&checkout.environment, environment)?;
    }
    let pins = pins::needed_for(&[purpose], checkout.release())?;
    let packages = environment.packages(&pins, Look::Files)?.into_iter();
    Ok(packages.filter(|package| !package.is_right()).map(|package| package.pin).collect())
}

/// Makes `environment`, which sees the packages of `shared`, pip among them.
fn create(shared: &Environment, environment: &Environment) -> Result<()> {
    println!("Making a Python environment in {}", environment.root().display());
    let venv = ["-m", "venv", "--clear", "--without-pip"];
    process::run(Command::new(shared.python()).args(venv).arg(environment.root()))?;
    let theirs = site_packages(shared)?;
    let link = site_packages(environment)?.join("shared.pth");
    files::write(&link, format!("{}\n", theirs.display()))?;
    if !environment.has_pip() {
        bail!("{} has no pip that {} could use", theirs.display(), environment.root().display());
    }
    Ok(())
}

/// Where an environment keeps its own packages.
fn site_packages(environment: &Environment) -> Result<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_path('platlib'))";
    let answer = process::read(Command::new(environment.python()).args(["-I", "-c", script]))?;
    Ok(PathBuf::from(answer.trim_end()))
}

fn pip(environment: &Environment) -> Command {
    let mut pip = Command::new(environment.python());
    pip.args(["-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]);
    pip
}

/// pip that installs `pins` into `environment`, and nothing that they need in turn.
pub fn pip_pinned(environment: &Environment, pins: &[Pin]) -> Command {
    let names: Vec<String> = pins.iter().map(Pin::to_string).collect();
    println!("Installing {} into {}", names.join(", "), environment.root().display());
    let mut pip = pip(environment);
    pip.arg("--no-deps").args(names);
    pip
}

/// Installs our wheel, whichever of the same version was there before.
pub fn install_wheel(environment: &Environment, wheel: &Path) -> Result<()> {
    let mut pip = pip(environment);
    process::run(pip.args(["--quiet", "--no-deps", "--force-reinstall"]).arg(wheel))
}
