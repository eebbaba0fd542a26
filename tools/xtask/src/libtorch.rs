//! Which libtorch is used, and why.
//!
//! The order is the one `torch-sys` follows while it builds, so that what is
//! said here is what gets linked.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use spark_build::version;

use crate::cargo_settings::{self, SETTINGS};
use crate::places;
use crate::python::{self, ENVIRONMENT, Environment};

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// LIBTORCH_USE_PYTORCH is set: the torch of the active Python.
    ActivePython,
    /// LIBTORCH is exported.
    Exported(PathBuf),
    /// An earlier set-up wrote down a libtorch of the user's own.
    Kept(PathBuf),
    /// The environment of this release in the cache folder.
    Cache(String),
}

impl Choice {
    /// Whether it is fetched.
    pub fn is_cache(&self) -> bool {
        matches!(self, Self::Cache(_))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActivePython => {
                f.write_str("the active Python's, since LIBTORCH_USE_PYTORCH is set")
            }
            Self::Exported(_) => f.write_str("the exported LIBTORCH"),
            Self::Kept(_) => write!(f, "of an earlier set-up; remove {SETTINGS} to choose anew"),
            Self::Cache(_) => f.write_str("the one shared by this user's checkouts"),
        }
    }
}

/// What the user asked for, gathered so that [`Wishes::choice`] is a pure
/// function.
#[derive(Debug, Clone, Default)]
struct Wishes {
    /// The release that the command line names.
    release: Option<String>,
    /// Whether LIBTORCH_USE_PYTORCH is set; to anything, as `torch-sys` has it.
    active_python: bool,
    /// LIBTORCH, unless it is cargo that set it.
    exported: Option<OsString>,
    /// What an earlier set-up wrote down.
    kept: Option<PathBuf>,
}

impl Wishes {
    fn choice(self, cache: &Path) -> Result<Choice> {
        if let Some(release) = self.release {
            let other = match (self.active_python, &self.exported) {
                (true, _) => "LIBTORCH_USE_PYTORCH is set",
                (_, Some(_)) => "LIBTORCH is exported",
                _ => return Ok(Choice::Cache(release)),
            };
            bail!("--torch names release {release}, but {other}: leave out one of the two");
        }
        if self.active_python {
            return Ok(Choice::ActivePython);
        }
        if let Some(exported) = self.exported {
            let folder = PathBuf::from(exported);
            // Cargo runs the build scripts that read it in other folders.
            if !folder.is_absolute() {
                bail!(
                    "LIBTORCH is {:?}, and must be an absolute path: correct it, or unset it to use \
                     the libtorch that `cargo xtask setup` fetches",
                    folder
                );
            }
            return Ok(Choice::Exported(folder));
        }
        let kept = match self.kept {
            Some(folder) => release_in(&folder, cache).map_or(Choice::Kept(folder), Choice::Cache),
            None => Choice::Cache(version::DEFAULT.to_owned()),
        };
        Ok(kept)
    }
}

/// The release whose environment in `cache` the libtorch in `folder` belongs to.
fn release_in(folder: &Path, cache: &Path) -> Option<String> {
    let environment = folder.strip_prefix(cache).ok()?.components().next()?;
    environment.as_os_str().to_str()?.strip_prefix(ENVIRONMENT).map(str::to_owned)
}

/// What decides in the checkout at `root`, given the command line's release and the
/// environment of this process.
///
/// # Errors
/// When `asked` is a release that is not taken or not the only wish, or LIBTORCH is exported with
/// a path that cannot work.
pub fn choose(root: &Path, asked: Option<&str>) -> Result<Choice> {
    let kept = cargo_settings::libtorch(root)?;
    let exported = env::var_os("LIBTORCH");
    let wishes = Wishes {
        release: asked.map(version::resolve).transpose().map_err(anyhow::Error::msg)?,
        active_python: env::var_os("LIBTORCH_USE_PYTORCH").is_some(),
        exported: exported.filter(|path| Some(Path::new(path)) != kept.as_deref()),
        // One that is gone is no wish any more.
        kept: kept.filter(|folder| folder.exists()),
    };
    wishes.choice(&places::cache()?)
}

/// The folder with `lib` and `include` that `choice` leads to, without links
/// in its path.
pub fn locate(choice: &Choice) -> Result<PathBuf> {
    let folder = match choice {
        Choice::Exported(folder) | Choice::Kept(folder) => folder.clone(),
        Choice::Cache(release) => {
            python::package_folder(&Environment::of_release(release)?.python(), "torch")?
        }
        Choice::ActivePython => python::package_folder(&python::active(), "torch")
            .context("LIBTORCH_USE_PYTORCH asks for the active Python's torch")?,
    };
    let library = folder.join("lib").join(format!("libtorch{}", env::consts::DLL_SUFFIX));
    if !library.exists() || !folder.join("include").is_dir() {
        bail!(
            "no libtorch in {} ({choice}): it must hold lib/libtorch{} and include/",
            folder.display(),
            env::consts::DLL_SUFFIX
        );
    }
    folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))
}

/// The version of the libtorch in `folder`.
pub fn check_version(folder: &Path) -> Result<String> {
    version::check(folder).map_err(anyhow::Error::msg)
}

/// Whether the libtorch in `folder` was built for CUDA.
pub fn has_cuda(folder: &Path) -> bool {
    folder.join("lib").join("libtorch_cuda.so").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: &str = "/home/me/.cache/spark-backbone";

    fn choice(active_python: bool, exported: Option<&str>, kept: Option<&str>) -> Result<Choice> {
        let (exported, kept) = (exported.map(OsString::from), kept.map(PathBuf::from));
        Wishes { release: None, active_python, exported, kept }.choice(Path::new(CACHE))
    }

    #[test]
    fn wishes_are_followed_in_the_order_of_torch_sys() {
        let kept = Some("/opt/kept");
        assert_eq!(choice(true, Some("/opt/own"), kept).unwrap(), Choice::ActivePython);
        assert_eq!(
            choice(false, Some("/opt/own"), kept).unwrap(),
            Choice::Exported("/opt/own".into())
        );
        assert_eq!(choice(false, None, kept).unwrap(), Choice::Kept("/opt/kept".into()));
        assert_eq!(choice(false, None, None).unwrap(), Choice::Cache(version::DEFAULT.into()));
    }

    #[test]
    fn a_release_of_the_cache_stays_chosen_until_another_is_named() {
        let torch = format!("{CACHE}/torch-2.15.0/lib/python3.11/site-packages/torch");
        assert_eq!(choice(false, None, Some(&torch)).unwrap(), Choice::Cache("2.15.0".into()));
        let named = |active_python, exported: Option<&str>| {
            let wishes = Wishes {
                release: Some("2.8.0".into()),
                active_python,
                exported: exported.map(OsString::from),
                kept: Some(PathBuf::from(&torch)),
            };
            wishes.choice(Path::new(CACHE))
        };
        assert_eq!(named(false, None).unwrap(), Choice::Cache("2.8.0".into()));
        for (active, exported, name) in
            [(true, None, "LIBTORCH_USE_PYTORCH"), (false, Some("/opt/own"), "LIBTORCH is")]
        {
            let error = named(active, exported).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("--torch"), "{error}");
        }
    }

    #[test]
    fn an_exported_path_that_cannot_work_is_refused() {
        for path in ["", "libtorch", "../libtorch"] {
            let error = choice(false, Some(path), None).unwrap_err().to_string();
            assert!(error.contains(&format!("LIBTORCH is {path:?}")), "{error}");
            assert!(error.contains("absolute path"), "{error}");
        }
    }

    #[test]
    fn a_folder_without_libtorch_is_refused_with_what_it_lacks() {
        let choice = Choice::Exported(env::temp_dir().join("no-libtorch-here"));
        let error = locate(&choice).unwrap_err().to_string();
        for part in ["no-libtorch-here", "exported LIBTORCH", "lib/libtorch", "include/"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
