//! Installing pinned packages into the environment of the cache folder, safe
//! against two processes at once and against being cut short.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::pins::{Pin, Use};
use crate::python::{self, Environment, Look};
use crate::{files, places, process};

/// What torch's wheel and those it needs take, unpacked and while being
/// unpacked, in bytes.
pub const TORCH_NEEDS: u64 = 7_000_000_000;

/// Sees to it that `environment` holds each of `pins`; does nothing if it
/// does. An environment made by other means is taken over as it is, and only
/// what it lacks is installed.
pub fn ensure(environment: &Environment, pins: &[Pin]) -> Result<()> {
    if is_complete(environment, pins)? {
        return Ok(());
    }
    let _lock = lock(environment)?;
    // Whoever held the lock may have done our work.
    if is_complete(environment, pins)? {
        return Ok(());
    }
    if !environment.has_pip() {
        python::create(environment)?;
    }
    // Read only now: an environment made anew has nothing in it.
    let mut finished = finished(environment)?;
    // Until the end nothing is known to be complete.
    remove_marker(environment)?;
    install(environment, pins)?;
    finished.extend(pins.iter().map(Pin::to_string));
    write_marker(environment, &finished)
}

/// Whether all of `pins` were once installed to the end and still are; an
/// environment whose Python no longer runs holds nothing.
fn is_complete(environment: &Environment, pins: &[Pin]) -> Result<bool> {
    let finished = finished(environment)?;
    Ok(pins.iter().all(|pin| finished.contains(&pin.to_string()))
        && environment
            .packages(pins, Look::Version)
            .is_ok_and(|packages| packages.iter().all(python::Package::is_right)))
}

fn install(environment: &Environment, pins: &[Pin]) -> Result<()> {
    let packages = environment.packages(pins, Look::Files)?;
    let missing: Vec<_> = packages.iter().filter(|package| !package.is_right()).collect();
    if missing.iter().any(|package| package.pin.needed_for == Use::Libtorch) {
        warn_if_disk_is_small(environment);
    }
    let damaged: Vec<_> = missing.iter().filter(|package| package.damaged).collect();
    if !damaged.is_empty() {
        // pip takes a damaged package for installed, and may be unable to
        // remove it: write over it.
        let names: Vec<_> = damaged.iter().map(|package| package.pin.to_string()).collect();
        println!("Repairing {}", names.join(", "));
        process::run(pip(environment).args(["--ignore-installed", "--no-deps"]).args(names))?;
    }
    let mut pip = pip(environment);
    if missing.is_empty() {
        // Asks pip for what these packages need in turn: seldom anything.
        pip.arg("--quiet");
    } else {
        let names: Vec<_> = missing.iter().map(|package| package.pin.to_string()).collect();
        println!("Installing {} into {}", names.join(", "), environment.root().display());
    }
    process::run(pip.args(pins.iter().map(Pin::to_string)))
        .context("pip could not install the packages; run the same command again to go on")
}

fn pip(environment: &Environment) -> Command {
    let mut pip = Command::new(environment.python());
    pip.args(["-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]);
    pip
}

fn warn_if_disk_is_small(environment: &Environment) {
    match places::free_bytes(environment.root()) {
        Ok(free) if free < TORCH_NEEDS => eprintln!(
            "warning: torch may need {} and {} has {} free; XDG_CACHE_HOME moves the cache elsewhere",
            places::gigabytes(TORCH_NEEDS),
            environment.root().display(),
            places::gigabytes(free)
        ),
        // Not knowing is no reason to stop: pip says when the disk is full.
        _ => {}
    }
}

/// Waits until no other process is installing; the lock ends with its file.
pub fn lock(environment: &Environment) -> Result<File> {
    let path = environment.root().with_added_extension("lock");
    path.parent().map_or(Ok(()), files::make_folder)?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => println!("Waiting for another set-up to finish"),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The file that lists what was installed to the end, one `name==version` a
/// line.
fn marker(environment: &Environment) -> PathBuf {
    environment.root().join("finished-packages.txt")
}

fn finished(environment: &Environment) -> Result<BTreeSet<String>> {
    let path = marker(environment);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn remove_marker(environment: &Environment) -> Result<()> {
    let path = marker(environment);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn write_marker(environment: &Environment, finished: &BTreeSet<String>) -> Result<()> {
    let text: String = finished.iter().map(|line| format!("{line}\n")).collect();
    files::replace(&marker(environment), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_read_as_written_and_gone_when_removed() {
        let root = tempfile::tempdir().unwrap();
        let environment = Environment::at(root.path().to_owned());
        let lines = BTreeSet::from(["timm==1.0.31".to_owned(), "torch==2.13.0".to_owned()]);

        assert!(finished(&environment).unwrap().is_empty());
        write_marker(&environment, &lines).unwrap();
        assert_eq!(finished(&environment).unwrap(), lines);
        remove_marker(&environment).unwrap();
        remove_marker(&environment).unwrap();
        assert!(finished(&environment).unwrap().is_empty());
    }

    #[test]
    fn a_marker_without_its_packages_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let environment = Environment::at(root.path().to_owned());
        let pins = crate::pins::all().unwrap();
        write_marker(&environment, &pins.iter().map(Pin::to_string).collect()).unwrap();
        assert!(!is_complete(&environment, &pins).unwrap());
    }

    #[test]
    fn two_processes_do_not_install_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("environment");
        let environment = Environment::at(root.clone());
        let held = lock(&environment).unwrap();
        let other = File::open(root.with_added_extension("lock")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().unwrap();
    }
}
