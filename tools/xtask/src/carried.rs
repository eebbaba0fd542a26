//! What is done to a library or program before a wheel or bundle carries it to other machines.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{files, process};

/// Where what lies in a wheel looks for libtorch, besides in the process it is loaded into: beside
/// the package in site-packages. `spark_build::libtorch` writes it, with the builder's own libtorch
/// behind a colon.
const BESIDE: &[u8] = spark_build::libtorch::BESIDE.as_bytes();

/// Takes the builder's own folders out of the places where a library or program looks for
/// libtorch.
pub fn forget_builder(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let places: Vec<usize> = bytes
        .windows(BESIDE.len() + 1)
        .enumerate()
        .filter(|(_, window)| window.starts_with(BESIDE) && window.ends_with(b":"))
        .map(|(start, _)| start + BESIDE.len())
        .collect();
    for start in places {
        // The string ends at a NUL: what follows it is nobody's.
        bytes[start..].iter_mut().take_while(|byte| **byte != 0).for_each(|byte| *byte = 0);
    }
    files::write(file, bytes)
}

/// Leaves out the symbols that only a debugger needs: two thirds of the file.
pub fn strip(file: &Path) {
    if let Err(error) = process::read(Command::new("strip").arg("--strip-unneeded").arg(file)) {
        eprintln!("warning: {} is carried larger than it need be: {error:#}", file.display());
    }
}

/// The oldest glibc that a library or program runs with, by the versions of its symbols: 36 of
/// 2.36; none if it asks for none.
pub fn glibc(file: &Path) -> Result<Option<u32>> {
    const VERSION: &[u8] = b"\0GLIBC_2.";
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let versions = bytes.windows(VERSION.len()).enumerate().filter(|(_, part)| *part == VERSION);
    let minor = |(start, _): (usize, &[u8])| {
        let rest = &bytes[start + VERSION.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&rest[..digits]).ok()?.parse::<u32>().ok()
    };
    Ok(versions.filter_map(minor).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_a_symbol_says_which_glibc_is_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path();
        for (text, minor) in [
            ("\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBCXX_3.4.30\0", Some(34)),
            ("\0GLIBC_PRIVATE\0", None),
        ] {
            fs::write(file, text).unwrap();
            assert_eq!(glibc(file).unwrap(), minor);
        }
        // This program runs here.
        assert!(glibc(&std::env::current_exe().unwrap()).unwrap().is_some());
    }

    #[test]
    fn the_builders_folders_go_and_nothing_else() {
        let library = tempfile::NamedTempFile::new().unwrap();
        let library = library.path();
        for (built, strings) in [
            (
                "\0$ORIGIN/../../torch/lib:/home/me/torch/lib\0name\0",
                "$ORIGIN/../../torch/lib name",
            ),
            ("\0$ORIGIN/../../torch/lib\0name:other\0", "$ORIGIN/../../torch/lib name:other"),
            ("$ORIGIN/../../torch/lib:/x", "$ORIGIN/../../torch/lib"),
            ("no\0places", "no places"),
        ] {
            fs::write(library, built).unwrap();
            forget_builder(library).unwrap();
            let carried = fs::read_to_string(library).unwrap();
            assert_eq!(carried.len(), built.len());
            let found: Vec<_> = carried.split('\0').filter(|text| !text.is_empty()).collect();
            assert_eq!(found.join(" "), strings);
        }
    }
}
