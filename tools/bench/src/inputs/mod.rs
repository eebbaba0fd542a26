//! What both sides of a duel work on: files that are made once and kept.

pub mod folder;
pub mod shards;
pub mod spark;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use backbone::weights::StateDict;
use tch::Tensor;

use crate::duel::Settings;
pub use spark::{Exported, SparkInputs};

/// Name of the images in a file of tensors.
pub const IMAGES: &str = "images";

/// What both sides work on, to be made before they start.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Weights, images and mask of a SparK step.
    Spark(SparkInputs),
    /// Weights of a model of timm's, and images, so many of this side.
    Timm {
        /// The model.
        model: &'static str,
        /// Images.
        images: usize,
        /// Their side in pixels.
        size: usize,
    },
    /// JPEG photographs.
    Photographs {
        /// How many.
        count: usize,
        /// Width and height in pixels.
        size: (usize, usize),
    },
    /// A folder of folders of so many small JPEG files.
    Folder {
        /// How many.
        files: usize,
    },
    /// Tar shards of so many small JPEG files.
    Shards {
        /// How many.
        files: usize,
        /// Milliseconds that each answer of the store takes that they lie in; none: they lie on
        /// the disk.
        delay: Option<u64>,
    },
    /// A ground truth and detections, as large as COCO's validation set.
    Coco,
    /// Weights of torchvision's Mask R-CNN, and photographs with objects on them.
    Detector {
        /// Photographs.
        images: usize,
        /// Height and width in pixels.
        size: (usize, usize),
        /// Objects of each.
        objects: usize,
    },
}

impl Inputs {
    /// Where they lie in the folder of all inputs.
    pub fn path(&self, folder: &Path) -> PathBuf {
        match self {
            Self::Spark(spark) => spark.path(folder),
            Self::Timm { model, images, size } => {
                folder.join(format!("timm-{model}-{images}x{size}px"))
            }
            Self::Photographs { count, size: (width, height) } => {
                folder.join(format!("photographs-{count}x{width}x{height}"))
            }
            Self::Folder { files } => folder.join(format!("folder-{files}")),
            Self::Shards { files, .. } => folder.join(format!("shards-{files}")),
            Self::Coco => folder.join("coco"),
            Self::Detector { images, size: (height, width), objects } => {
                folder.join(format!("detector-{images}x{height}x{width}-{objects}"))
            }
        }
    }

    /// Makes them unless they are there.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn make(&self, settings: &Settings) -> Result<()> {
        let path = self.path(&settings.folder);
        if path.exists() {
            return Ok(());
        }
        match self {
            Self::Spark(spark) => {
                if let Some(exported) = spark.exported {
                    let file = SparkInputs::pt2(&path);
                    make_with_python(settings, &[exported.name(), &spark.model], &file)?;
                }
                spark.write(&settings.folder).map(drop)
            }
            Self::Timm { model, images, size } => {
                let arguments = ["timm", model, &images.to_string(), &size.to_string()];
                make_with_python(settings, &arguments, &path)
            }
            Self::Photographs { count, size: (width, height) } => {
                let [count, width, height] = [count, width, height].map(ToString::to_string);
                make_with_python(settings, &["photographs", &count, &width, &height], &path)
            }
            Self::Folder { files } => folder::make(settings, *files, &path),
            Self::Detector { images, size: (height, width), objects } => {
                let numbers = [images, height, width, objects].map(ToString::to_string);
                let mut arguments = vec!["detector"];
                arguments.extend(numbers.iter().map(String::as_str));
                make_with_python(settings, &arguments, &path)
            }
            Self::Shards { files, .. } => shards::make(settings, *files, &path),
            Self::Coco => whole(&path, |part| Ok(spark_tests::coco_set::write(part)?)),
        }?;
        write_back();
        Ok(())
    }
}

impl Inputs {
    /// The store that they lie in, if it is one.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve(&self, settings: &Settings) -> Result<Option<shards::Server>> {
        match self {
            Self::Shards { delay: Some(delay), .. } => {
                shards::Server::start(settings, &self.path(&settings.folder), *delay).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Has the system write to its disk what has been made, for which the first side
/// that syncs a file of its own would wait.
fn write_back() {
    // Where there is no such program, the first round may be slow.
    let _ = Command::new("sync").status();
}

fn make_with_python(settings: &Settings, arguments: &[&str], path: &Path) -> Result<()> {
    let mut python = settings.script("make_inputs.py");
    let output = python.args(arguments).arg(path).output();
    let output = output.with_context(|| format!("cannot start {}", settings.python.display()))?;
    ensure!(
        output.status.success(),
        "cannot make {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Has `make` fill a folder that becomes `path` once it is whole: a run may be
/// cut short.
fn whole(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let part = path.with_added_extension(format!("part{}", std::process::id()));
    let made = std::fs::create_dir_all(&part)
        .with_context(|| format!("cannot make {}", part.display()))
        .and_then(|()| make(&part))
        .and_then(|()| Ok(std::fs::rename(&part, path)?));
    if made.is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Takes the tensor of this name out of `tensors`, read from `path`.
///
/// # Errors
/// There is none.
pub fn take(tensors: &mut StateDict, name: &str, path: &Path) -> Result<Tensor> {
    tensors.remove(name).with_context(|| format!("{} has no tensor {name:?}", path.display()))
}
