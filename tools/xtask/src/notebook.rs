//! `cargo xtask test --notebook`: docs/playground.ipynb, executed from top to bottom.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::library::{Profile, Source};
use crate::pins::Use;
use crate::python::Environment;
use crate::setup::{self, Checkout, Purpose, Torch};
use crate::{files, install, overlay, process, wheel};

/// The notebook, in the repository.
const NOTEBOOK: &str = "docs/playground.ipynb";

/// What it may take on two cores.
const LIMIT: Duration = Duration::from_mins(10);

/// Sets up, installs Jupyter if it is missing, builds our wheel, and executes the notebook in a
/// folder of its own, which holds nothing but that wheel.
pub fn run(torch: &Torch) -> Result<()> {
    let checkout = setup::run(Purpose::Test, torch)?;
    let environment = overlay::environment("notebook", checkout.release())?;
    ensure_jupyter(&checkout, &environment)?;
    let scratch = checkout.target.join("notebook");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)
            .with_context(|| format!("cannot empty {}", scratch.display()))?;
    }
    let source = Source { profile: Profile::Dev, library: None };
    let built = wheel::build(&checkout, true, &source)?;
    wheel::pack(&checkout, &[built], source.profile, Some(&scratch))?;

    let start = Instant::now();
    let executed = execute(&checkout.root.join(NOTEBOOK), &environment, &scratch)?;
    let (took, limit) = (start.elapsed().as_secs(), LIMIT.as_secs());
    let kilobytes = fs::metadata(&executed).map_or(0, |file| file.len() / 1000);
    println!("{NOTEBOOK} took {took} s; with its outputs, {kilobytes} kB: {}", executed.display());
    ensure!(took <= limit, "{NOTEBOOK} took {took} s, but at most {limit} s are promised");
    Ok(())
}

/// Sees to it that `environment` holds the pinned Jupyter.
fn ensure_jupyter(checkout: &Checkout, environment: &Environment) -> Result<()> {
    let _lock = install::lock(environment)?;
    let missing = overlay::missing(checkout, environment, Use::Notebook)?;
    if missing.is_empty() {
        return Ok(());
    }
    process::run(&mut overlay::pip_pinned(environment, &missing))
        .context("pip could not install Jupyter")
}

/// Executes `notebook` in `folder`, where the result lies under the same name.
fn execute(notebook: &Path, environment: &Environment, folder: &Path) -> Result<PathBuf> {
    let place = folder.join(notebook.file_name().context("a notebook without a name")?);
    files::copy(notebook, &place)?;
    let nbconvert = |arguments: &[&str]| {
        let mut jupyter = Command::new(environment.python());
        jupyter.args(["-m", "nbconvert", "--to", "notebook", "--inplace"]).args(arguments);
        // Neither the user's kernels nor their settings have a say, and theirs stay as they are.
        for variable in ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"] {
            jupyter.env(variable, folder.join("jupyter"));
        }
        process::run(jupyter.arg(&place))
    };
    // What it trains takes its time: no single cell is to decide when it takes too long.
    let untimed = ["--ExecutePreprocessor.timeout=-1", "--ExecutePreprocessor.record_timing=False"];
    nbconvert(&["--execute", untimed[0], untimed[1]])?;
    // Lines are put together, and those of progress left out that were written over: viewers show
    // each as a block of its own. nbconvert does so before it executes, hence the second time.
    nbconvert(&["--coalesce-streams"])?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pins, places};

    #[test]
    fn what_is_kept_of_the_notebook_is_small_whole_and_of_no_machine() {
        let text = fs::read_to_string(places::root().unwrap().join(NOTEBOOK)).unwrap();
        assert!(text.len() < 500_000, "{} bytes: leave pictures out", text.len());
        assert!(text.contains("\"image/jpeg\"") && text.contains("\"WHEEL = "));
        // Paths of a machine begin with a name at the root; those of the run are told without.
        let begins_at_root = text.split(['"', ' ']).any(|word| {
            word.strip_prefix('/').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic()))
        });
        assert!(!begins_at_root, "a path of the machine: execute it anew");
        for trace in ["\"output_type\": \"error\"", "\"stderr\""] {
            assert!(!text.contains(trace), "{trace}: execute it anew");
        }
    }

    #[test]
    fn what_executes_it_is_pinned() {
        let pins = pins::needed_for(&[Use::Notebook], spark_build::version::DEFAULT).unwrap();
        for name in ["nbconvert", "ipykernel"] {
            assert!(pins.iter().any(|pin| pin.name == name), "{name}");
        }
    }
}
