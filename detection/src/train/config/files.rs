//! Where a run's data lies.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data::files::coco_annotations;

use super::TrainConfig;

impl TrainConfig {
    /// The annotation files for training and validation, and their images'
    /// folders where they are named.
    ///
    /// # Errors
    /// The data folder has none, or several.
    pub fn files(&self) -> Result<[(PathBuf, Option<&Path>); 2]> {
        let named = |file: &Option<PathBuf>, split: &str| match file {
            Some(file) => Ok(file.clone()),
            None => annotation_file(&self.data, split),
        };
        Ok([
            (named(&self.train_annotations, "train")?, self.train_images.as_deref()),
            (named(&self.val_annotations, "val")?, self.val_images.as_deref()),
        ])
    }
}

/// `annotations/instances_{split}*.json` in `folder`: the only one, or the one
/// without a suffix.
fn annotation_file(folder: &Path, split: &str) -> Result<PathBuf> {
    let annotations = folder.join("annotations");
    let shown = annotations.display();
    let found = match coco_annotations(&annotations, split) {
        Err(_) if folder.as_os_str().is_empty() => bail!(
            "no {split} annotations: name a file with --{split}-annotations, or a folder with --data"
        ),
        found => found.with_context(|| {
            format!(
                "{} is not laid out as COCO is: cannot read {shown}; name files with \
                 --train-annotations and --val-annotations",
                folder.display()
            )
        })?,
    };
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            bail!("{shown} has no instances_{split}*.json; name a file with --{split}-annotations")
        }
        several => bail!(
            "{shown} has {} files instances_{split}*.json; name one with --{split}-annotations",
            several.len()
        ),
    }
}
