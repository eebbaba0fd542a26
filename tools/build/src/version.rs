//! Which libtorch a folder holds, and whether this workspace builds against it.
//!
//! Shared by the build scripts and by `xtask`, so that `cargo build` and
//! `cargo xtask setup` refuse a wrong libtorch in the same words.

use std::fs;
use std::path::{Path, PathBuf};

/// The releases that are fetched and tested, oldest first: the newest patch of each series, as
/// PyPI has them, without the suffix that tells builds apart (`+cpu`, `+cu130`). Other patches of
/// these series have the same C++ interface.
pub const RELEASES: [&str; 8] =
    ["2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0"];

/// The release that is fetched unless another is asked for: the one `tch` was generated from.
pub const DEFAULT: &str = "2.13.0";

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
/// are taken and what to do.
pub fn check(root: &Path) -> Result<String, String> {
    let remedy = format!(
        "export LIBTORCH with the folder of one of these, or unset LIBTORCH and \
         LIBTORCH_USE_PYTORCH and run `cargo xtask setup --torch {}`, which fetches one",
        series(DEFAULT)
    );
    let Some((version, file)) = find(root) else {
        return Err(format!(
            "no libtorch version is written in {}, and releases {} are taken: {remedy}",
            root.display(),
            range()
        ));
    };
    if is_taken(&version) {
        return Ok(version);
    }
    Err(format!(
        "libtorch {version} was found ({}), but releases {} are taken: {remedy}",
        file.display(),
        range()
    ))
}

/// The release that `asked` means, as a user types it: a series (`2.15`) or a release of one that
/// is taken (`2.9.0`).
///
/// # Errors
/// It is none; one sentence names the range.
pub fn resolve(asked: &str) -> Result<String, String> {
    if let Some(release) = RELEASES.into_iter().find(|release| series(release) == asked) {
        return Ok(release.to_owned());
    }
    let is_whole =
        asked.split('.').count() == 3 && asked.split('.').all(|part| part.parse::<u32>().is_ok());
    if is_whole && is_taken(asked) {
        return Ok(asked.to_owned());
    }
    Err(format!(
        "torch {asked:?} is asked for, but releases {} are taken, as 2.15 or 2.9.1",
        range()
    ))
}

/// Whether the workspace builds against this version.
pub fn is_taken(version: &str) -> bool {
    RELEASES.iter().any(|release| series(release) == series(version))
}

/// Whether `torch.export` of this version writes the archive that networks are read from.
pub fn writes_pt2(version: &str) -> bool {
    is_taken(version) && series(version) != "2.8"
}

/// The releases that are taken, for a message: `2.8 to 2.15`.
pub fn range() -> String {
    let [oldest, .., newest] = RELEASES;
    format!("{} to {}", series(oldest), series(newest))
}

/// The series of a version, in which libtorch keeps its C++ interface: `2.13` of `2.13.0+cu130`.
pub fn series(version: &str) -> &str {
    let second = version.match_indices('.').nth(1);
    second.map_or(version, |(dot, _)| &version[..dot])
}

/// The series after that of a version: `2.14` of `2.13.0`.
pub fn after(version: &str) -> String {
    let (major, minor) = series(version).split_once('.').unwrap_or((version, "0"));
    format!("{major}.{}", minor.parse::<u32>().map_or(0, |minor| minor + 1))
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
        assert_eq!((series("2.9.1+cpu"), after("2.9.1+cpu")), ("2.9", "2.10".to_owned()));
    }

    #[test]
    fn a_series_or_a_release_of_one_can_be_asked_for() {
        for (asked, meant) in [("2.15", "2.15.0"), ("2.9", "2.9.1"), ("2.9.0", "2.9.0")] {
            assert_eq!(resolve(asked).as_deref(), Ok(meant));
        }
        for asked in ["2", "2.7", "2.7.1", "2.16.0", "2.1", "latest", "", "2.15.0.1", "2.15.x"] {
            let refusal = resolve(asked).unwrap_err();
            assert!(refusal.contains(&format!("{asked:?}")) && refusal.contains("2.8 to 2.15"));
        }
        assert!(RELEASES.contains(&DEFAULT));
    }

    #[test]
    fn a_wrong_version_is_refused_with_what_where_and_what_to_do() {
        let root = std::env::temp_dir().join(format!("libtorch-version-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let verdict = |version: &str| {
            fs::write(root.join("build-version"), version).unwrap();
            check(&root)
        };
        for taken in ["2.8.0", "2.13.0+cpu", "2.15.3+cu132"] {
            assert_eq!(verdict(taken).as_deref(), Ok(taken));
        }
        for wrong in ["2.7.1+cpu", "2.16.0"] {
            let refusal = verdict(wrong).unwrap_err();
            for part in [wrong, "build-version", "2.8 to 2.15 are taken", "cargo xtask setup"] {
                assert!(refusal.contains(part), "{part:?} is not in {refusal:?}");
            }
        }
        fs::remove_file(root.join("build-version")).unwrap();
        let unknown = check(&root).unwrap_err();
        fs::remove_dir(&root).unwrap();
        assert!(unknown.contains("no libtorch version") && unknown.contains("2.8 to 2.15"));
    }
}
