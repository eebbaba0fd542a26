//! `cargo xtask doctor`: what is set up, what is not, and what to do about it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::libtorch::{self, Choice};
use crate::pins::{self, Use};
use crate::python::{self, Environment, Look};
use crate::setup::{self, Purpose};
use spark_build::{nccl, version};

use crate::cargo_settings::{self, SETTINGS};
use crate::{install, places, process};

/// The minor version of torch from which on a gradient may be of another type than its weight.
const BF16_GRADS_SINCE: u32 = 10;

/// What is said of one thing: its state, or a trouble and what to do.
enum Finding {
    Good(String),
    Trouble { what: String, remedy: String },
}

impl Finding {
    fn trouble(what: impl ToString, remedy: impl ToString) -> Self {
        Self::Trouble { what: what.to_string(), remedy: remedy.to_string() }
    }
}

/// Looks at everything, prints a line a finding, and returns the number of
/// troubles. Changes nothing.
pub fn run() -> Result<usize> {
    let root = places::root()?;
    let choice = libtorch::choose(&root, None);
    let folder = choice.as_ref().ok().and_then(|choice| libtorch::locate(choice).ok());
    let folder = folder.as_deref();
    let version = folder.and_then(|folder| libtorch::check_version(folder).ok());
    let release = version.as_deref().map_or(version::DEFAULT, version::release);
    let environment = Environment::of_release(release)?;

    let mut findings = vec![("libtorch", which_libtorch(&choice))];
    if let Some(folder) = folder {
        findings.push(("version", check_version(folder)));
        findings.push(("CUDA", cuda(folder)));
        findings.push(("NCCL", nccl(folder)));
        findings.push((SETTINGS, plain_cargo(&root, folder)));
        findings.extend(loader(folder).into_iter().map(|finding| ("loader", finding)));
    }
    findings.push(("compiler", compiler()));
    findings.push(("Python", interpreter()));
    findings.push(("cache", cache(&environment)));
    findings.extend(packages(&environment, choice.as_ref().ok(), release)?);
    let target = places::target()?;
    let target =
        cargo_settings::subfolder(release).map_or(target.clone(), |name| target.join(name));
    findings.extend(binaries(&target, folder));

    for (subject, finding) in &findings {
        match finding {
            Finding::Good(what) => println!("ok       {subject}: {what}"),
            Finding::Trouble { what, remedy } => {
                println!("TROUBLE  {subject}: {what}\n         -> {remedy}");
            }
        }
    }
    let troubles = findings.iter().filter(|(_, f)| matches!(f, Finding::Trouble { .. })).count();
    println!(
        "{}",
        if troubles == 0 { "All is well.".into() } else { format!("Troubles: {troubles}") }
    );
    Ok(troubles)
}

fn which_libtorch(choice: &Result<Choice>) -> Finding {
    let choice = match choice {
        Ok(choice) => choice,
        Err(error) => return Finding::trouble(format!("{error:#}"), "export another LIBTORCH"),
    };
    let fetched = match choice {
        Choice::Cache(release) => {
            Environment::of_release(release).is_ok_and(|it| it.python().exists())
        }
        _ => true,
    };
    match libtorch::locate(choice) {
        Ok(folder) => Finding::Good(format!("{} ({choice})", folder.display())),
        Err(_) if !fetched => Finding::trouble("not fetched yet", "run `cargo xtask setup`"),
        Err(error) if choice.is_cache() => {
            Finding::trouble(format!("{error:#}"), "run `cargo xtask setup`")
        }
        Err(error) => Finding::trouble(
            format!("{error:#}"),
            "correct or unset LIBTORCH and LIBTORCH_USE_PYTORCH, then run `cargo xtask setup`",
        ),
    }
}

fn check_version(folder: &Path) -> Finding {
    match libtorch::check_version(folder) {
        Ok(version) => Finding::Good(match lacks(&version) {
            Some(lack) => format!("{version}; {lack}"),
            None => version,
        }),
        Err(error) => Finding::trouble(error, "see above"),
    }
}

/// What a release can't do that the default one can, and what is done instead.
fn lacks(version: &str) -> Option<&'static str> {
    let minor = version::series(version).split_once('.')?.1.parse::<u32>().ok()?;
    (minor < BF16_GRADS_SINCE).then_some(
        "gradients of weights are kept in float32 in bfloat16 training, too: the same results, at \
         more memory",
    )
}

fn cuda(folder: &Path) -> Finding {
    let gpu = process::read(Command::new("nvidia-smi").arg("-L")).ok();
    let gpu = gpu.as_deref().and_then(|list| list.lines().next()).map(str::to_owned);
    let device = Path::new("/dev/nvidia0").exists();
    match (libtorch::has_cuda(folder), gpu, device) {
        (true, Some(gpu), _) => Finding::Good(format!("yes, {gpu}")),
        (true, None, false) => {
            Finding::Good("built in, but no NVIDIA GPU here: the CPU is used".into())
        }
        (false, None, false) => Finding::Good("no, a CPU build; and no NVIDIA GPU here".into()),
        (true, None, true) => Finding::trouble(
            "there is a GPU (/dev/nvidia0) but nvidia-smi does not run",
            "install or repair the NVIDIA driver, with its tools",
        ),
        (false, ..) => Finding::trouble(
            "there is an NVIDIA GPU, but this libtorch is a CPU build",
            "export LIBTORCH with a CUDA build, or unset it, and run `cargo xtask setup`",
        ),
    }
}

/// Headers are needed only to build for several GPUs, and so no trouble if they
/// are missing; a list of the user's own that is wrong is one.
fn nccl(folder: &Path) -> Finding {
    if !libtorch::has_cuda(folder) {
        return Finding::Good("no, a CPU build".into());
    }
    match nccl::include_folders(&folder.join("lib")) {
        Ok(_) => Finding::Good("headers are there, so the feature `nccl` can be built".into()),
        Err(error) if nccl::own_list().is_some() => {
            Finding::trouble(error, "the feature `nccl` cannot be built until then")
        }
        Err(_) => Finding::Good(
            "headers are not there; to build with the feature `nccl`, for several GPUs, run \
             `cargo xtask setup --nccl`"
                .into(),
        ),
    }
}

/// What plain cargo is told.
fn plain_cargo(root: &Path, folder: &Path) -> Finding {
    match cargo_settings::libtorch(root) {
        Ok(Some(kept)) if kept == folder => Finding::Good(format!("names {}", folder.display())),
        Ok(Some(kept)) => Finding::trouble(
            format!("names {}, not the libtorch in use", kept.display()),
            "run `cargo xtask setup`",
        ),
        Ok(None) => {
            Finding::trouble("missing, so plain cargo finds no libtorch", "run `cargo xtask setup`")
        }
        Err(error) => Finding::trouble(format!("{error:#}"), "then run `cargo xtask setup`"),
    }
}

/// What in the environment has the loader take another libtorch than `folder`'s. The
/// programs built here look elsewhere last; [`loads`] says whether each does.
fn loader(folder: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let paths = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    if let Some(other) =
        env::split_paths(&paths).find(|place| is_other(place, folder) && holds_libtorch(place))
    {
        findings.push(Finding::Good(format!(
            "LD_LIBRARY_PATH lists another libtorch, {}: the programs built here do not take it, \
             but programs linked by others may",
            other.display()
        )));
    }
    // The loader takes spaces for colons.
    let preloaded = env::var("LD_PRELOAD").unwrap_or_default();
    let mut preloaded = preloaded.split([':', ' ']).map(Path::new);
    if let Some(other) = preloaded.find(|file| is_other_libtorch(file, folder)) {
        findings.push(Finding::trouble(
            format!("LD_PRELOAD puts another libtorch into every program, {}", other.display()),
            "unset LD_PRELOAD; nothing here needs it",
        ));
    }
    findings
}

/// Whether the folder `place` is another than that of the libraries of the libtorch in
/// `folder`.
fn is_other(place: &Path, folder: &Path) -> bool {
    let own = folder.join("lib").canonicalize();
    place.canonicalize().is_ok_and(|place| own.is_ok_and(|own| own != place))
}

/// Whether `file` is a library of another libtorch than the one in `folder`.
fn is_other_libtorch(file: &Path, folder: &Path) -> bool {
    is_libtorch(file) && file.parent().is_some_and(|place| is_other(place, folder))
}

fn holds_libtorch(folder: &Path) -> bool {
    let files = folder.read_dir().into_iter().flatten().flatten();
    files.map(|file| file.path()).any(|file| is_libtorch(&file))
}

/// Whether a file is one of libtorch's libraries, by its name.
fn is_libtorch(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split_once(".so").map(|(stem, _)| stem);
    stem.is_some_and(|stem| stem.starts_with("libtorch") || stem.starts_with("libc10"))
}

fn compiler() -> Finding {
    let name = env::var("CXX").unwrap_or_else(|_| "c++".into());
    match process::read(Command::new(&name).arg("--version")) {
        Ok(answer) => {
            Finding::Good(format!("{name}, {}", answer.lines().next().unwrap_or_default()))
        }
        Err(error) => Finding::trouble(
            format!("no C++ compiler: {error:#}"),
            "install one (Debian and Ubuntu: the package g++), or export CXX",
        ),
    }
}

fn interpreter() -> Finding {
    match python::new_enough() {
        Ok((name, version)) => Finding::Good(format!("{name} is {version}")),
        Err(error) => Finding::trouble(error, "install it with its venv module"),
    }
}

fn cache(environment: &Environment) -> Finding {
    let place = environment.root().display();
    let Ok(free) = places::free_bytes(environment.root()) else {
        return Finding::trouble(format!("{place} cannot be reached"), "export XDG_CACHE_HOME");
    };
    let free_text = places::gigabytes(free);
    match places::used_bytes(environment.root()) {
        Ok(used) if environment.python().exists() => {
            Finding::Good(format!("{} in {place}, {free_text} free", places::gigabytes(used)))
        }
        _ if free < install::TORCH_NEEDS => Finding::trouble(
            format!(
                "{free_text} free at {place}, and torch may need {}",
                places::gigabytes(install::TORCH_NEEDS)
            ),
            "free some, or export XDG_CACHE_HOME with a folder on another disk",
        ),
        _ => Finding::Good(format!("nothing yet in {place}, {free_text} free")),
    }
}

/// One finding a package; those that only the tests need are no trouble while
/// a libtorch of the user's own is used.
fn packages(
    environment: &Environment,
    choice: Option<&Choice>,
    release: &str,
) -> Result<Vec<(&'static str, Finding)>> {
    let needed: &[Use] = choice.map_or(&[], |choice| setup::packages_for(choice, Purpose::Build));
    // The frameworks have an environment of their own.
    let uses = [Use::Libtorch, Use::Demo, Use::Test, Use::Wheel];
    let pins = pins::needed_for(&uses, release)?;
    let packages = match environment.packages(&pins, Look::Version) {
        Ok(packages) => packages,
        Err(error) => {
            let remedy = "run `cargo xtask setup`, which makes the environment anew";
            return Ok(vec![("package", Finding::trouble(format!("{error:#}"), remedy))]);
        }
    };
    Ok(packages
        .iter()
        .map(|package| {
            let found = package.found.as_deref().unwrap_or("nothing");
            let what = format!("{} pinned, {found} found", package.pin);
            let finding = if package.is_right() {
                Finding::Good(what)
            } else if needed.contains(&package.pin.needed_for) {
                Finding::trouble(what, "run `cargo xtask setup`")
            } else {
                Finding::Good(format!("{what}; `cargo xtask test` installs it"))
            };
            ("package", finding)
        })
        .collect())
}

/// Whether the programs built so far start, and with which libtorch, in this very
/// environment.
fn binaries(target: &Path, libtorch: Option<&Path>) -> Vec<(&'static str, Finding)> {
    let built = ["debug", "release"].iter().flat_map(|profile| {
        ["pretrain", "classify", "detect"].map(|name| target.join(profile).join(name))
    });
    built
        .filter(|path| path.exists())
        .map(|path| ("program", loads(&path, libtorch).unwrap_or_else(|| starts(&path))))
        .collect()
}

/// What is wrong with the libtorch that `program` would load; none if it is the one in
/// `folder`, or if the loader does not tell.
fn loads(program: &Path, folder: Option<&Path>) -> Option<Finding> {
    let folder = folder?;
    // Has glibc's loader list what it would load instead of starting the program.
    let list = process::read(Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1")).ok()?;
    let other = loaded(&list).into_iter().find(|file| is_other_libtorch(file, folder))?;
    Some(Finding::trouble(
        format!(
            "{} loads {}, not the libtorch in {}",
            program.display(),
            other.display(),
            folder.display()
        ),
        "take that folder out of LD_LIBRARY_PATH (and LD_PRELOAD), or build the program again, so \
         that it looks for its own libtorch first",
    ))
}

/// The files in the loader's list: `name => /file (address)` or `/file (address)` a line.
fn loaded(list: &str) -> Vec<PathBuf> {
    let files = list.lines().map(|line| line.split_once("=>").map_or(line, |(_, file)| file));
    let files = files.map(|file| file.rsplit_once(" (").map_or(file, |(file, _)| file).trim());
    files.filter(|file| file.starts_with('/')).map(PathBuf::from).collect()
}

fn starts(program: &PathBuf) -> Finding {
    let place = fs::canonicalize(program).unwrap_or_else(|_| program.clone());
    match process::read(Command::new(program).arg("--help")) {
        Ok(_) => Finding::Good(format!("{} finds its libtorch", place.display())),
        Err(error) => {
            Finding::trouble(format!("{error:#}"), "run `cargo xtask setup`, then build it again")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_read() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibtorch_cpu.so => /other libs/libtorch_cpu.so (0x00007f12)\n\
            \tlibgone.so => not found\n\
            \t/opt/preloaded/libc10.so (0x00007f13)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f14)\n";
        let files = loaded(list);
        let expected = [
            "/other libs/libtorch_cpu.so",
            "/opt/preloaded/libc10.so",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
        assert_eq!(files.iter().filter(|file| is_libtorch(file)).count(), 2);
    }

    #[test]
    fn libtorchs_libraries_are_known_by_name() {
        for name in ["libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so.2", "libc10_cuda.so"] {
            assert!(is_libtorch(&Path::new("/any").join(name)), "{name}");
        }
        for name in ["libtorrent.a", "libtorch.txt", "libc.so.6", "torch.so", ""] {
            assert!(!is_libtorch(&Path::new("/any").join(name)), "{name}");
        }
    }
}
