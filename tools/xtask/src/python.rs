//! Python: the interpreters there are, and the environment in the cache
//! folder that carries libtorch, the demo's photographs and the packages that
//! tests compare with.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::pins::Pin;
use spark_build::version;

use crate::{places, process};

/// The oldest Python that every pinned package has a wheel for.
const OLDEST: (u32, u32) = (3, 11);

/// Where to look for one that is new enough; the user's own choice first.
const CANDIDATES: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// Environments in the cache folder are called this and their torch's release.
pub const ENVIRONMENT: &str = "torch-";

/// Prints the folder of the package named by the argument, without importing
/// it (importing torch takes seconds).
const FIND_PACKAGE: &str = "\
import importlib.util, sys
spec = importlib.util.find_spec(sys.argv[1])
if spec is None: sys.exit(f'{sys.executable} has no package {sys.argv[1]}')
print(spec.submodule_search_locations[0])";

/// Prints name, version and `whole` or `damaged` for each package named by the
/// arguments that is installed. A package is whole if every file it lists has
/// the size it lists, which the first argument asks to look at: an install
/// that was cut short leaves others.
const LIST_PACKAGES: &str = "\
import importlib.metadata as metadata, os, sys
def whole(dist):
    if not dist.files: return False
    for file in dist.files:
        path = file.locate()
        if file.size is not None and (not os.path.isfile(path) or os.path.getsize(path) != file.size):
            return False
    return True
for name in sys.argv[2:]:
    try: dist = metadata.distribution(name)
    except metadata.PackageNotFoundError: continue
    try: version = dist.version
    except Exception: version = None
    intact = version is not None and (sys.argv[1] != 'files' or whole(dist))
    print(name, version, 'whole' if intact else 'damaged')";

/// The interpreter that `torch-sys` asks when LIBTORCH_USE_PYTORCH is set.
pub fn active() -> PathBuf {
    PathBuf::from(if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" })
}

/// The folder of an installed package.
pub fn package_folder(python: &Path, package: &str) -> Result<PathBuf> {
    let folder = process::read(Command::new(python).args(["-c", FIND_PACKAGE, package]))?;
    Ok(PathBuf::from(folder.trim_end()))
}

/// A Python new enough to make the environment with, and its version.
pub fn new_enough() -> Result<(&'static str, String)> {
    let mut found = Vec::new();
    for candidate in CANDIDATES {
        let script = "import sys; print('%d.%d' % sys.version_info[:2])";
        let Ok(answer) = process::read(Command::new(candidate).args(["-c", script])) else {
            continue;
        };
        let version = answer.trim().to_owned();
        if parse_version(&version).is_some_and(|version| version >= OLDEST) {
            return Ok((candidate, version));
        }
        found.push(format!("{candidate} is {version}"));
    }
    let found = if found.is_empty() { "none was found".to_owned() } else { found.join(", ") };
    bail!("Python {}.{} or newer is needed, but {found}: install one", OLDEST.0, OLDEST.1)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A pinned package and what is installed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// What ought to be there.
    pub pin: Pin,
    /// The version that is.
    pub found: Option<String>,
    /// Whether files of it are missing or cut short.
    pub damaged: bool,
}

impl Package {
    /// Whether it is installed as pinned.
    pub fn is_right(&self) -> bool {
        let found = self.found.as_deref().map(version::release);
        !self.damaged && found == Some(self.pin.version.as_str())
    }
}

/// How closely to look at installed packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At the recorded version.
    Version,
    /// At the size of every file, too: a second or two for torch.
    Files,
}

/// The virtual environment in the cache folder.
#[derive(Debug, Clone)]
pub struct Environment {
    root: PathBuf,
}

impl Environment {
    /// The one with torch `release`, which all checkouts of this user share.
    pub fn of_release(release: &str) -> Result<Self> {
        Ok(Self::at(places::cache()?.join(format!("{ENVIRONMENT}{release}"))))
    }

    /// The one in the folder `root`, whether made yet or not.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.root.join("bin").join("python")
    }

    /// Whether packages can be installed into it.
    pub fn has_pip(&self) -> bool {
        self.python().exists()
            && process::read(Command::new(self.python()).args(["-I", "-m", "pip", "--version"]))
                .is_ok()
    }

    /// What is installed of each of `pins`; nothing, if the environment has
    /// not been made.
    pub fn packages(&self, pins: &[Pin], look: Look) -> Result<Vec<Package>> {
        let listing = if self.python().exists() {
            let mut python = Command::new(self.python());
            // -I: packages of PYTHONPATH or the user's site are not in here.
            python.args(["-I", "-c", LIST_PACKAGES]);
            python.arg(if look == Look::Files { "files" } else { "version" });
            process::read(python.args(pins.iter().map(|pin| &pin.name)))?
        } else {
            String::new()
        };
        pins.iter().map(|pin| parse_listing(&listing, pin)).collect()
    }
}

/// What `listing`, the answer of [`LIST_PACKAGES`], says of one package.
fn parse_listing(listing: &str, pin: &Pin) -> Result<Package> {
    let mut package = Package { pin: pin.clone(), found: None, damaged: false };
    for line in listing.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [name, version, state] = words[..] else {
            bail!("Python listed a package as {line:?}")
        };
        if name == pin.name {
            package.found = Some(version.to_owned());
            package.damaged = state == "damaged";
        }
    }
    Ok(package)
}

/// Makes `environment` anew with `python -m venv`, deleting what is there.
pub fn create(environment: &Environment) -> Result<()> {
    let (python, version) = new_enough()?;
    println!("Making a Python {version} environment in {}", environment.root.display());
    process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment.root))
        .with_context(|| {
            format!(
                "{python} cannot make a virtual environment; on Debian and Ubuntu install the \
                 package python{version}-venv"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::Use;

    fn pin(name: &str) -> Pin {
        Pin { name: name.into(), version: "1.2.3".into(), needed_for: Use::Test, torch: None }
    }

    #[test]
    fn a_package_is_right_at_its_pinned_release_and_whole() {
        let right = |listing: &str| parse_listing(listing, &pin("timm")).unwrap().is_right();
        assert!(right("numpy 2.0 whole\ntimm 1.2.3 whole\n"));
        assert!(right("timm 1.2.3+cpu whole\n"), "a build's suffix is no other release");
        assert!(!right("timm 1.2.4 whole\n"));
        assert!(!right("timm 1.2.3 damaged\n"));
        assert!(!right("numpy 1.2.3 whole\n"));
        assert!(!right(""));
        assert!(parse_listing("Traceback\n", &pin("timm")).is_err());
    }

    #[test]
    fn versions_of_python_compare_as_numbers() {
        assert!(parse_version("3.9").unwrap() < OLDEST);
        assert!(parse_version("3.11").unwrap() >= OLDEST);
        assert!(parse_version("4.0").unwrap() >= OLDEST);
        assert_eq!(parse_version("three"), None);
    }

    #[test]
    fn an_environment_not_made_yet_has_no_packages() {
        let nowhere = Environment::at("/nowhere".into());
        let packages = nowhere.packages(&[pin("timm")], Look::Files).unwrap();
        assert_eq!(packages, [Package { pin: pin("timm"), found: None, damaged: false }]);
    }
}
