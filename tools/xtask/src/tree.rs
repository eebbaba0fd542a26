//! `cargo xtask install`: the shared library as a tree that C, C++ and CMake
//! projects build against.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::files;
use crate::library::{LIBRARY, Source};
use crate::setup::{self, Checkout, Purpose, Torch};

/// Files that are copied as they are: place in the checkout, place in the tree.
const COPIED: [(&str, &str); 3] = [
    ("ffi/include/spark_backbone.h", "include/spark_backbone.h"),
    ("ffi/include/spark/backbone.hpp", "include/spark/backbone.hpp"),
    ("LICENSE", "share/doc/spark_backbone/LICENSE"),
];

/// Files whose `@NAMES@` are filled in: template in the checkout, place in the
/// tree.
const FILLED: [(&str, &str); 3] = [
    (
        "ffi/cmake/SparkBackboneConfigVersion.cmake.in",
        "lib/cmake/SparkBackbone/SparkBackboneConfigVersion.cmake",
    ),
    ("ffi/cmake/SparkBackboneConfig.cmake.in", "lib/cmake/SparkBackbone/SparkBackboneConfig.cmake"),
    ("ffi/cmake/spark_backbone.pc.in", "lib/pkgconfig/spark_backbone.pc"),
];

/// What the library is linked to.
#[derive(Debug, Clone)]
struct Libtorch {
    folder: PathBuf,
    release: String,
}

impl Libtorch {
    fn of(checkout: &Checkout) -> Self {
        Self { folder: checkout.libtorch.clone(), release: checkout.release().to_owned() }
    }
}

/// Sets up, builds the library and installs the tree into `prefix`.
///
/// # Errors
/// When a step fails; until everything is built and written, `prefix` holds
/// what it held.
pub fn run(torch: &Torch, prefix: &Path, source: &Source) -> Result<()> {
    check_prefix(prefix)?;
    let checkout = setup::run(Purpose::Build, torch)?;
    let library = source.provide(&checkout)?;
    install(&checkout.root, &library, &Libtorch::of(&checkout), prefix)?;
    println!("installed in {}", prefix.display());
    println!("  CMake       -DCMAKE_PREFIX_PATH={}", prefix.display());
    println!("  pkg-config  PKG_CONFIG_PATH={}", prefix.join("lib/pkgconfig").display());
    Ok(())
}

/// Refuses what cannot become a folder before minutes go into the build.
fn check_prefix(prefix: &Path) -> Result<()> {
    if prefix.as_os_str().is_empty() {
        bail!("--prefix is empty, but it must name the folder to install into");
    }
    if prefix.exists() && !prefix.is_dir() {
        bail!("--prefix is {}, but that is a file: name a folder", prefix.display());
    }
    Ok(())
}

/// Lays the tree out beside its place, then moves each file where it belongs:
/// a program that runs from the old tree keeps the library it has loaded.
fn install(root: &Path, library: &Path, libtorch: &Libtorch, prefix: &Path) -> Result<()> {
    let staged = prefix.join(format!(".spark_backbone-{}", std::process::id()));
    let done = stage(root, library, libtorch, &staged).and_then(|files| {
        files.iter().try_for_each(|file| move_file(&staged.join(file), &prefix.join(file)))
    });
    // What is left is no part of the tree, whether that went well or not.
    if staged.exists() {
        fs::remove_dir_all(&staged)
            .with_context(|| format!("cannot remove {}", staged.display()))?;
    }
    done
}

/// Writes the whole tree into `staged`; the files' places in it, those that
/// make it usable last.
fn stage(root: &Path, library: &Path, libtorch: &Libtorch, staged: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![Path::new("lib").join(LIBRARY)];
    copy(library, &staged.join(&files[0]))?;
    for (source, place) in COPIED {
        copy(&root.join(source), &staged.join(place))?;
        files.push(place.into());
    }
    for (source, place) in FILLED {
        let template = root.join(source);
        let text = files::read(&template)?;
        write(&staged.join(place), &fill(&text, libtorch)?)?;
        files.push(place.into());
    }
    Ok(files)
}

/// `template` with its names filled in.
fn fill(template: &str, libtorch: &Libtorch) -> Result<String> {
    let folder = libtorch.folder.to_str().with_context(|| {
        let folder = libtorch.folder.display();
        format!("libtorch lies in {folder}, but CMake needs a path in UTF-8")
    })?;
    let text = template
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@LIBTORCH_VERSION@", &libtorch.release);
    // The path comes last: it may hold an @ of its own.
    match text.replace("@LIBTORCH_DIR@", "").split('@').nth(1) {
        Some(name) => bail!("a template asks for @{name}@, which has no value"),
        None => Ok(text.replace("@LIBTORCH_DIR@", &quoted_for_cmake(folder))),
    }
}

/// A path between the quotes of a CMake string.
fn quoted_for_cmake(path: &str) -> String {
    let mut quoted = String::new();
    for character in path.chars() {
        if matches!(character, '\\' | '"' | '$' | ';') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    make_parent(target)?;
    files::copy(source, target)
}

fn write(target: &Path, text: &str) -> Result<()> {
    make_parent(target)?;
    files::write(target, text)
}

fn move_file(source: &Path, target: &Path) -> Result<()> {
    make_parent(target)?;
    files::rename(source, target)
}

fn make_parent(file: &Path) -> Result<()> {
    file.parent().map_or(Ok(()), files::make_folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places;

    fn libtorch(folder: &str) -> Libtorch {
        Libtorch { folder: folder.into(), release: "2.15.0".into() }
    }

    /// Every file under `root`, relative to it.
    fn files_in(root: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(root).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_tree_holds_what_hosts_look_for_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let [library, prefix] = ["built.so", "prefix"].map(|name| scratch.path().join(name));
        fs::write(&library, "library").unwrap();
        let root = places::root().unwrap();
        // Twice: a tree that is there gets replaced.
        for _ in 0..2 {
            install(&root, &library, &libtorch("/opt/torch"), &prefix).unwrap();
        }
        let found = files_in(&prefix);
        let config = "lib/cmake/SparkBackbone/SparkBackboneConfig.cmake";
        let config = fs::read_to_string(prefix.join(config)).unwrap();
        let expected = [
            "include/spark/backbone.hpp",
            "include/spark_backbone.h",
            "lib/cmake/SparkBackbone/SparkBackboneConfig.cmake",
            "lib/cmake/SparkBackbone/SparkBackboneConfigVersion.cmake",
            "lib/libspark_backbone.so",
            "lib/pkgconfig/spark_backbone.pc",
            "share/doc/spark_backbone/LICENSE",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(config.contains("\"/opt/torch\"") && config.contains("\"2.15.0\""));
    }

    #[test]
    fn a_library_that_was_not_built_leaves_the_old_tree() {
        let scratch = tempfile::tempdir().unwrap();
        let prefix = scratch.path();
        fs::create_dir(prefix.join("lib")).unwrap();
        fs::write(prefix.join("lib").join(LIBRARY), "old").unwrap();
        let root = places::root().unwrap();
        let error = install(&root, Path::new("/nowhere/l.so"), &libtorch("/opt/torch"), prefix);
        let (found, error) = (files_in(prefix), error.unwrap_err().to_string());
        assert_eq!(found, [Path::new("lib").join(LIBRARY)]);
        assert!(error.contains("/nowhere/l.so"), "{error}");
    }

    #[test]
    fn a_prefix_that_cannot_be_a_folder_is_refused() {
        assert!(check_prefix(Path::new("")).unwrap_err().to_string().contains("--prefix is empty"));
        let file = tempfile::Builder::new().suffix("taken").tempfile().unwrap();
        let error = check_prefix(file.path()).unwrap_err().to_string();
        assert!(error.contains("taken, but that is a file"), "{error}");
    }

    #[test]
    fn paths_reach_cmake_whole_and_unknown_names_are_noticed() {
        let filled = fill("set(a \"@LIBTORCH_DIR@\")", &libtorch(r#"/a@b/$c;"d\"#)).unwrap();
        assert_eq!(filled, r#"set(a "/a@b/\$c\;\"d\\")"#);
        assert!(fill("@OTHER@", &libtorch("/")).unwrap_err().to_string().contains("@OTHER@"));
    }
}
