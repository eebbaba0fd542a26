//! `cargo xtask photos`: the demo's photographs, out of the Python packages
//! that carry them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup::Checkout;
use crate::{files, python};

/// The photographs: package and path in it. The packages also carry drawings,
/// charts, logos, microscopy and the second of a stereo pair; those are left
/// out.
const PHOTOGRAPHS: [(&str, &str); 15] = [
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/brick.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/coins.png"),
    ("skimage", "data/grass.png"),
    ("skimage", "data/gravel.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/moon.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
];

/// Copies the photographs into the target folder, and returns where they lie.
pub fn run(checkout: &Checkout) -> Result<PathBuf> {
    let folder = checkout.target.join("demo").join("photos");
    files::make_folder(&folder)?;
    for package in ["skimage", "sklearn"] {
        let source = python::package_folder(&checkout.environment.python(), package)?;
        for (_, path) in PHOTOGRAPHS.iter().filter(|(carrier, _)| *carrier == package) {
            copy(&source.join(path), &folder)?;
        }
    }
    println!("{} photographs in {}", PHOTOGRAPHS.len(), folder.display());
    Ok(folder)
}

/// Copies a file into `folder` under its own name, whole or not at all.
fn copy(source: &Path, folder: &Path) -> Result<()> {
    let name = source.file_name().context("a photograph without a name")?;
    let target = folder.join(name);
    // A name without an image's extension: a file left over by a copy that was
    // cut short is no training image.
    let part = target.with_added_extension("part");
    files::copy(source, &part)?;
    files::rename(&part, &target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_photographs_share_a_name() {
        let mut names: Vec<_> =
            PHOTOGRAPHS.iter().map(|(_, path)| Path::new(path).file_name().unwrap()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), PHOTOGRAPHS.len());
    }

    #[test]
    fn a_photograph_that_is_gone_is_named() {
        let error = copy(Path::new("/nowhere/cat.png"), &std::env::temp_dir()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/cat.png"));
    }
}
