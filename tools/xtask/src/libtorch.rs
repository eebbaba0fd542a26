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

use crate::python::{self, Environment};

/// The link in the repository's root that `.cargo/config.toml` hands to every
/// build as LIBTORCH, unless the user exports another.
pub const LINK: &str = ".libtorch";

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// LIBTORCH_USE_PYTORCH is set: the torch of the active Python.
    ActivePython,
    /// LIBTORCH is exported.
    Exported(PathBuf),
    /// An earlier set-up linked a libtorch of the user's own.
    Linked(PathBuf),
    /// Nothing was asked for: the environment in the cache folder.
    Cache,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ActivePython => "the active Python's, since LIBTORCH_USE_PYTORCH is set",
            Self::Exported(_) => "the exported LIBTORCH",
            Self::Linked(_) => "linked by an earlier set-up; remove .libtorch to choose anew",
            Self::Cache => "the one shared by this user's checkouts",
        })
    }
}

/// What the user asked for, gathered so that [`Wishes::choice`] is a pure
/// function.
#[derive(Debug, Clone, Default)]
struct Wishes {
    /// Whether LIBTORCH_USE_PYTORCH is set; to anything, as `torch-sys` has it.
    active_python: bool,
    /// LIBTORCH, unless it is cargo that set it to the link.
    exported: Option<OsString>,
    /// Where the link leads, if it leads anywhere.
    linked: Option<PathBuf>,
}

impl Wishes {
    fn choice(self, cache: &Path) -> Result<Choice> {
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
        Ok(match self.linked {
            Some(folder) if !folder.starts_with(cache) => Choice::Linked(folder),
            _ => Choice::Cache,
        })
    }
}

/// What decides in the checkout at `root`, given the environment of this
/// process.
///
/// # Errors
/// When LIBTORCH is exported with a path that cannot work.
pub fn choose(root: &Path, cache: &Environment) -> Result<Choice> {
    let linked = root.join(LINK).canonicalize().ok();
    let wishes = Wishes {
        active_python: env::var_os("LIBTORCH_USE_PYTORCH").is_some(),
        exported: env::var_os("LIBTORCH").filter(|path| !is_link_of(Path::new(path), root)),
        linked,
    };
    let cache = cache.root();
    wishes.choice(&cache.canonicalize().unwrap_or_else(|_| cache.to_owned()))
}

/// Whether `path` is the link of the checkout at `root`: so cargo passes it
/// to the programs it runs.
fn is_link_of(path: &Path, root: &Path) -> bool {
    path.file_name().is_some_and(|name| name == LINK)
        && path.parent().and_then(|parent| parent.canonicalize().ok()).as_deref() == Some(root)
}

/// The folder with `lib` and `include` that `choice` leads to, without links
/// in its path.
///
/// # Errors
/// When there is none, or it holds no libtorch.
pub fn locate(choice: &Choice, cache: &Environment) -> Result<PathBuf> {
    let folder = match choice {
        Choice::Exported(folder) | Choice::Linked(folder) => folder.clone(),
        Choice::Cache => python::package_folder(&cache.python(), "torch")?,
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
///
/// # Errors
/// When it is not the one the workspace is built against.
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

    const CACHE: &str = "/home/me/.cache/spark-backbone/torch-2.13.0";

    fn choice(active_python: bool, exported: Option<&str>, linked: Option<&str>) -> Result<Choice> {
        let (exported, linked) = (exported.map(OsString::from), linked.map(PathBuf::from));
        Wishes { active_python, exported, linked }.choice(Path::new(CACHE))
    }

    #[test]
    fn wishes_are_followed_in_the_order_of_torch_sys() {
        let linked = Some("/opt/linked");
        assert_eq!(choice(true, Some("/opt/own"), linked).unwrap(), Choice::ActivePython);
        assert_eq!(
            choice(false, Some("/opt/own"), linked).unwrap(),
            Choice::Exported("/opt/own".into())
        );
        assert_eq!(choice(false, None, linked).unwrap(), Choice::Linked("/opt/linked".into()));
        assert_eq!(choice(false, None, None).unwrap(), Choice::Cache);
    }

    #[test]
    fn a_link_into_the_cache_is_no_wish() {
        let torch = format!("{CACHE}/lib/python3.11/site-packages/torch");
        assert_eq!(choice(false, None, Some(&torch)).unwrap(), Choice::Cache);
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
    fn only_this_checkouts_link_is_cargos() {
        let root = env::temp_dir().canonicalize().unwrap();
        assert!(is_link_of(&root.join(LINK), &root));
        assert!(is_link_of(&root.join(".").join(LINK), &root));
        assert!(!is_link_of(&root.join("torch"), &root));
        assert!(!is_link_of(&Path::new("/").join(LINK), &root), "another checkout's");
    }

    #[test]
    fn a_folder_without_libtorch_is_refused_with_what_it_lacks() {
        let choice = Choice::Exported(env::temp_dir().join("no-libtorch-here"));
        let cache = Environment::at("/nowhere".into());
        let error = locate(&choice, &cache).unwrap_err().to_string();
        for part in ["no-libtorch-here", "exported LIBTORCH", "lib/libtorch", "include/"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
