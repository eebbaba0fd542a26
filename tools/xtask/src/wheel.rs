//! `cargo xtask wheel`: the Python package with the shared library inside, one for each release of
//! torch, and the programs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::library::{Profile, Source};
use crate::setup::{self, Checkout, Purpose, Torch};
use spark_build::version;

use crate::{carried, files, places, process};

/// The programs that come with the library.
const PROGRAMS: [&str; 3] = ["pretrain", "detect", "classify"];

/// What was built against one release.
#[derive(Debug, Clone)]
pub struct Built {
    /// The release, without the suffix of its build.
    pub release: String,
    /// The shared library, and the programs if they are to come along.
    pub files: Vec<PathBuf>,
}

/// Builds the library and the programs for each of `releases`, and the wheel that carries them;
/// where the wheel lies. It goes into `output`, by default `target/wheels`, and replaces an older
/// one only when it is whole.
pub fn run(
    releases: &[String],
    programs: bool,
    source: &Source,
    output: Option<&Path>,
) -> Result<PathBuf> {
    let asked = asked(releases)?;
    if source.library.is_some() && asked.len() > 1 {
        bail!("--library is one file, but --torch names {} releases: name one", asked.len());
    }
    let mut built = Vec::new();
    let mut packer = None;
    for torch in &asked {
        let checkout = setup::run(Purpose::Wheel, torch)?;
        built.push(build(&checkout, programs, source)?);
        packer = Some(checkout);
    }
    let packer = packer.context("--torch names no release")?;
    pack(&packer, &built, source.profile, output)
}

/// The releases that the command line means, each once, oldest first.
pub fn asked(releases: &[String]) -> Result<Vec<Torch>> {
    if releases.is_empty() {
        return Ok(vec![Torch::default()]);
    }
    let mut named = BTreeMap::new();
    for release in releases {
        if release == "all" {
            named.extend(version::RELEASES.map(|release| (place(release), release.to_owned())));
        } else {
            let release = version::resolve(release).map_err(anyhow::Error::msg)?;
            named.insert(place(&release), release);
        }
    }
    Ok(named.into_values().map(|release| Torch { torch: Some(release) }).collect())
}

/// The place of a release's series among those taken; a wheel carries one of each.
fn place(release: &str) -> Option<usize> {
    let series = version::series(release);
    version::RELEASES.iter().position(|release| version::series(release) == series)
}

/// The library, and the programs unless they are left out, built in `checkout`, or the library that
/// is given with the programs beside it.
pub fn build(checkout: &Checkout, programs: bool, source: &Source) -> Result<Built> {
    let library = source.provide(checkout)?;
    let mut files = vec![library.clone()];
    if programs && source.library.is_none() {
        let mut cargo = checkout.cargo();
        cargo.args(["build", "--workspace", "--bins", "--profile", source.profile.name()]);
        process::run(&mut cargo)?;
    }
    let beside = PROGRAMS.map(|name| library.with_file_name(name));
    files.extend(beside.into_iter().filter(|file| programs && file.is_file()));
    Ok(Built { release: checkout.release().to_owned(), files })
}

/// The wheel that carries `built`, packed by the Python of `checkout`.
pub fn pack(
    checkout: &Checkout,
    built: &[Built],
    profile: Profile,
    output: Option<&Path>,
) -> Result<PathBuf> {
    let output = match output {
        // Relative to where the user typed the command.
        Some(folder) => env::current_dir()?.join(folder),
        None => places::target()?.join("wheels"),
    };
    // On the disk of the output, so that the wheel can be renamed into it.
    let staging = output.join(format!(".staging-{}", std::process::id()));
    files::make_folder(&staging)?;
    let wheel = stage_and_pack(checkout, built, profile, &staging)
        .and_then(|wheel| move_into(&wheel, &output));
    // What is left there is of no use, and no reason to fail.
    let _ = fs::remove_dir_all(&staging);
    let wheel = wheel?;
    let megabytes = fs::metadata(&wheel).map_or(0.0, |file| file.len() as f64 / 1e6);
    println!("wheel {} ({megabytes:.1} MB)", wheel.display());
    Ok(wheel)
}

/// The package as setuptools wants it, packed by pip; the wheel.
fn stage_and_pack(
    checkout: &Checkout,
    built: &[Built],
    profile: Profile,
    staging: &Path,
) -> Result<PathBuf> {
    let package = staging.join("package");
    // A copy: setuptools leaves its work beside the sources.
    copy_folder(&checkout.root.join("ffi").join("python"), &package)?;
    files::copy(&checkout.root.join("LICENSE"), &package.join("LICENSE"))?;
    let module = package.join("spark_backbone");
    let releases: Vec<&str> = built.iter().map(|built| built.release.as_str()).collect();
    let version = workspace_version(&checkout.root)?;
    files::write(&module.join("_release.py"), release_module(&version, &releases))?;
    require(&package.join("pyproject.toml"), &releases)?;
    let mut glibc = None;
    for Built { release, files } in built {
        let folder = module.join(format!("torch-{}", version::series(release)));
        files::make_folder(&folder)?;
        for file in files {
            let carried = folder.join(file.file_name().context("a file without a name")?);
            files::copy(file, &carried)?;
            carried::forget_builder(&carried)?;
            // Unstripped, a program of the dev profile takes a hundred megabytes.
            if profile == Profile::Release || file.extension().is_none() {
                carried::strip(&carried);
            }
            glibc = glibc.max(carried::glibc(&carried)?);
        }
    }

    let packed = staging.join("packed");
    let mut pip = Command::new(checkout.environment.python());
    // -I: neither PYTHONPATH nor the user's own packages have a say. Nothing is
    // fetched: setuptools is the environment's.
    pip.args(["-I", "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir"]);
    // `setup.py` tags the wheel by it.
    if let Some(minor) = glibc {
        pip.env("SPARK_WHEEL_PLATFORM", format!("manylinux_2_{minor}_{}", env::consts::ARCH));
    }
    process::run(pip.arg(&packed).arg(&package)).context("the wheel cannot be packed")?;
    the_wheel_in(&packed)
}

/// Has the package require a torch of the releases it carries, from the oldest to the newest.
fn require(project: &Path, releases: &[&str]) -> Result<()> {
    const ANY: &str = "\"torch\"";
    let text = files::read(project)?;
    let (Some(oldest), Some(newest)) = (releases.first(), releases.last()) else {
        bail!("a wheel for no release");
    };
    if !text.contains(ANY) {
        bail!("{} requires no {ANY}", project.display());
    }
    let needed = format!("\"torch>={},<{}\"", version::series(oldest), version::after(newest));
    files::write(project, text.replacen(ANY, &needed, 1))
}

/// `_release.py`, what the package knows of its build.
fn release_module(version: &str, releases: &[&str]) -> String {
    let mut carried = String::new();
    for release in releases {
        let _ = write!(carried, "\"{}\": \"{release}\", ", version::series(release));
    }
    format!(
        "\"\"\"What this package is built from; written by `cargo xtask wheel`.\"\"\"\n\n\
         VERSION = \"{version}\"\n\
         # Series of torch that there is a library for, and the release each is built against.\n\
         LIBTORCH = {{{}}}\n",
        carried.trim_end_matches([',', ' '])
    )
}

/// The version that all packages of the workspace share.
fn workspace_version(root: &Path) -> Result<String> {
    let path = root.join("Cargo.toml");
    parse_version(&files::read(&path)?)
        .with_context(|| format!("no workspace version in {}", path.display()))
}

/// The `version` of the table `[workspace.package]`.
fn parse_version(manifest: &str) -> Option<String> {
    let (_, table) = manifest.split_once("[workspace.package]")?;
    let lines = table.lines().take_while(|line| !line.starts_with('['));
    let value =
        lines.filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "version")?.1;
    Some(value.trim().trim_matches('"').to_owned())
}

fn the_wheel_in(folder: &Path) -> Result<PathBuf> {
    let wheels: Vec<PathBuf> = entries(folder)?
        .into_iter()
        .filter(|path| path.extension() == Some(OsStr::new("whl")))
        .collect();
    match wheels.as_slice() {
        [wheel] => Ok(wheel.clone()),
        _ => bail!("pip left {} wheels in {}, not one", wheels.len(), folder.display()),
    }
}

/// Renames `file` into `folder`, over an older one of its name.
fn move_into(file: &Path, folder: &Path) -> Result<PathBuf> {
    let name = file.file_name().context("a wheel without a name")?;
    let place = folder.join(name);
    files::rename(file, &place)?;
    Ok(place)
}

/// Copies a folder of sources without what Python leaves in it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    files::make_folder(to)?;
    for path in entries(from)? {
        let Some(name) = path.file_name() else { continue };
        if name == "__pycache__" {
            continue;
        }
        let place = to.join(name);
        if path.is_dir() {
            copy_folder(&path, &place)?;
        } else {
            files::copy(&path, &place)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()
    };
    read().with_context(|| format!("cannot read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_workspaces() {
        let manifest = "[workspace]\nmembers = []\n\n[workspace.package]\nedition = \"2024\"\n\
            version = \"1.2.3\"\n\n[workspace.dependencies]\nversion = \"9\"\n";
        assert_eq!(parse_version(manifest).as_deref(), Some("1.2.3"));
        assert_eq!(parse_version("[package]\nversion = \"1\"\n"), None);
        assert_eq!(parse_version("[workspace.package]\n[package]\nversion = \"1\"\n"), None);
        let module = release_module("1.2.3", &["2.9.1", "2.15.0"]);
        assert!(module.contains("VERSION = \"1.2.3\"\n"), "{module}");
        assert!(
            module.contains("LIBTORCH = {\"2.9\": \"2.9.1\", \"2.15\": \"2.15.0\"}\n"),
            "{module}"
        );
    }

    #[test]
    fn releases_are_built_once_each_and_oldest_first() {
        let line = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let asked = asked(&names)?;
            let names: Vec<String> = asked.into_iter().filter_map(|torch| torch.torch).collect();
            Ok::<_, anyhow::Error>(names.join(" "))
        };
        assert_eq!(line(&[]).unwrap(), "");
        assert_eq!(line(&["2.15", "2.9", "2.15.0"]).unwrap(), "2.9.1 2.15.0");
        assert_eq!(line(&["all"]).unwrap(), version::RELEASES.join(" "));
        assert!(line(&["2.7"]).unwrap_err().to_string().contains("2.8 to 2.15"));
    }

    #[test]
    fn the_package_requires_the_torch_it_carries() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path();
        let project = folder.join("pyproject.toml");
        fs::write(&project, "dependencies = [\"torch\"]\n").unwrap();
        require(&project, &["2.8.0", "2.15.0"]).unwrap();
        let text = fs::read_to_string(&project).unwrap();
        let again = require(&project, &["2.8.0"]).unwrap_err().to_string();
        assert_eq!(text, "dependencies = [\"torch>=2.8,<2.16\"]\n");
        assert!(again.contains("requires no"), "{again}");
    }

    #[test]
    fn sources_are_copied_without_pythons_leftovers() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path();
        let from = folder.join("from");
        fs::create_dir_all(from.join("package").join("__pycache__")).unwrap();
        fs::write(from.join("package").join("module.py"), "x = 1\n").unwrap();
        fs::write(from.join("package").join("__pycache__").join("module.pyc"), "").unwrap();
        let to = folder.join("to");
        copy_folder(&from, &to).unwrap();
        let copied = entries(&to.join("package")).unwrap();
        assert_eq!(copied, [to.join("package").join("module.py")]);
    }

    #[test]
    fn a_wheel_replaces_the_old_one_and_no_wheel_does_not() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path();
        let packed = folder.join("packed");
        fs::create_dir(&packed).unwrap();
        fs::write(folder.join("a.whl"), "old").unwrap();
        let error = the_wheel_in(&packed).unwrap_err().to_string();
        assert!(error.contains("0 wheels"), "{error}");

        fs::write(packed.join("a.whl"), "new").unwrap();
        let place = move_into(&the_wheel_in(&packed).unwrap(), folder).unwrap();
        let text = fs::read_to_string(place).unwrap();
        assert_eq!(text, "new");
    }
}
