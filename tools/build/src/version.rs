//! Which libtorch a folder holds, and whether it is the one this workspace is
//! built against.
//!
//! Shared by the build scripts and by `xtask`, so that `cargo build` and
//! `cargo xtask setup` refuse a wrong libtorch in the same words.

use std::fs;
use std::path::{Path, PathBuf};

/// The only release whose C++ interface the `tch` crate in use was generated
/// for, without the suffix that tells builds apart (`+cpu`, `+cu130`).
pub const NEEDED: &str = "2.13.0";

/// Reads the version out of a file's text.
type Parse = fn(&str) -> Option<String>;

/// Where releases write their version, relative to the libtorch folder, and
/// how to read it there. The fullest spelling comes first: only the first two
/// carry the build's suffix.
const PLACES: [(&str, Parse); 4] = [
    ("build-version", from_build_version),
    ("version.py", from_version_py),
    ("include/torch/headeronly/version.h", from_header),
    ("include/torch/csrc/api/include/torch/version.h", from_header),
];

/// The version in the libtorch folder `root` (the one with `lib` and
/// `include`) and the file that says so; `None` when no file does.
pub fn find(root: &Path) -> Option<(String, PathBuf)> {
    PLACES.iter().find_map(|(place, parse)| {
        let file = root.join(place);
        let version = parse(&fs::read_to_string(&file).ok()?)?;
        Some((version, file))
    })
}

/// The version in `root`, or one sentence saying what was found, where, which
/// is needed and what to do.
pub fn check(root: &Path) -> Result<String, String> {
    let remedy = format!(
        "export LIBTORCH with the folder of a libtorch {NEEDED}, or unset LIBTORCH and \
         LIBTORCH_USE_PYTORCH, remove .libtorch and run `cargo xtask setup`, which fetches one"
    );
    let Some((version, file)) = find(root) else {
        return Err(format!(
            "no libtorch version is written in {}, and {NEEDED} is needed: {remedy}",
            root.display()
        ));
    };
    if release(&version) == NEEDED {
        return Ok(version);
    }
    Err(format!(
        "libtorch {version} was found ({}), but {NEEDED} is needed: {remedy}",
        file.display()
    ))
}

/// A version without the suffix of its build: `2.13.0` of `2.13.0+cu130`.
pub fn release(version: &str) -> &str {
    version.split_once('+').map_or(version, |(release, _)| release)
}

/// The file in the zip archives of libtorch: the bare version.
fn from_build_version(text: &str) -> Option<String> {
    let version = text.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// The Python module in the wheel: `__version__ = '2.13.0+cu130'`.
fn from_version_py(text: &str) -> Option<String> {
    let assigned = text.lines().find_map(|line| line.strip_prefix("__version__"))?;
    let (_, value) = assigned.split_once('=')?;
    let version = value.trim().trim_matches(['\'', '"']);
    (!version.is_empty()).then(|| version.to_owned())
}

/// The C++ header: three `#define`s, one a component.
fn from_header(text: &str) -> Option<String> {
    let component = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name))
                .then(|| words.next()?.parse::<u32>().ok())?
        })
    };
    let major = component("TORCH_VERSION_MAJOR")?;
    let minor = component("TORCH_VERSION_MINOR")?;
    let patch = component("TORCH_VERSION_PATCH")?;
    Some(format!("{major}.{minor}.{patch}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "#pragma once\n/// Major.\n#define TORCH_VERSION_MAJOR 2\n\
        #define TORCH_VERSION_MINOR 13\n#define TORCH_VERSION_PATCH 0\n\
        #define TORCH_VERSION_ABI_TAG 7\n#define TORCH_VERSION \\\n  \"2.13.0\"\n";

    #[test]
    fn reads_every_spelling() {
        assert_eq!(from_build_version("2.13.0+cpu\n").as_deref(), Some("2.13.0+cpu"));
        assert_eq!(from_header(HEADER).as_deref(), Some("2.13.0"));
        let py =
            "__all__ = ['__version__', 'debug']\n__version__ = '2.13.0+cu130'\ndebug = False\n";
        assert_eq!(from_version_py(py).as_deref(), Some("2.13.0+cu130"));
    }

    #[test]
    fn files_without_a_version_give_none() {
        assert_eq!(from_build_version(" \n"), None);
        assert_eq!(from_version_py("__all__ = ['__version__']\n"), None);
        // The wheel's outer version.h only includes another header.
        assert_eq!(from_header("#include <torch/headeronly/version.h>\n"), None);
        assert_eq!(from_header("#define TORCH_VERSION_MAJOR 2\n"), None);
    }

    #[test]
    fn the_suffix_of_a_build_is_no_part_of_the_release() {
        assert_eq!(release("2.13.0+cu130"), "2.13.0");
        assert_eq!(release("2.13.0"), "2.13.0");
    }

    #[test]
    fn a_wrong_version_is_refused_with_what_where_and_what_to_do() {
        let root = std::env::temp_dir().join(format!("libtorch-version-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let verdicts = ["2.12.1+cpu", "2.13.0+cpu"].map(|version| {
            fs::write(root.join("build-version"), version).unwrap();
            check(&root)
        });
        fs::remove_file(root.join("build-version")).unwrap();
        let unknown = check(&root).unwrap_err();
        fs::remove_dir(&root).unwrap();

        let refusal = verdicts[0].clone().unwrap_err();
        for part in ["2.12.1+cpu", "build-version", "2.13.0 is needed", "cargo xtask setup"] {
            assert!(refusal.contains(part), "{part:?} is not in {refusal:?}");
        }
        assert_eq!(verdicts[1].as_deref(), Ok("2.13.0+cpu"));
        assert!(unknown.contains("no libtorch version") && unknown.contains("2.13.0"));
    }
}
