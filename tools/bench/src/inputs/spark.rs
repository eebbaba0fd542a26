//! Weights, images and mask of a SparK step.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Result, ensure};
use backbone::models::{self, BuildOptions, Family};
use backbone::weights::{Naming, StateDict, write_safetensors};
use backbone::{PatchMask, Size};
use data::rng::Rng;
use pretrain::mask;
use pretrain::spark::Spark;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use super::{IMAGES, take};

mod step;

pub use step::Step;

/// Stands before the weights' names in a file of inputs.
pub const WEIGHTS: &str = "model.";
/// Name of the mask, bool `[N, 1, rows, columns]`, true where visible.
pub const ACTIVE: &str = "active";
/// Stands before the encoder's names among those of a SparK model.
const ENCODER: &str = "sparse_encoder.sp_cnn.";
/// The decoder's width at the coarsest level, the official one.
pub const DECODER_WIDTH: i64 = 768;
/// Seed of weights, images and masks.
const SEED: u64 = 0;

/// A SparK step: which model on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SparkInputs {
    /// A registered model, or, if exported, one of timm's.
    pub model: String,
    /// What of timm's network lies as a `.pt2` file beside them.
    #[serde(default)]
    pub exported: Option<Exported>,
    /// Images of a step.
    pub batch: i64,
    /// Side of the images in pixels.
    pub size: i64,
    /// Share of the patches that is masked.
    pub mask_ratio: f64,
}

/// What of timm's network is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exported {
    /// The maps of strides 4 to 32. The weights are those of the file.
    Pyramid,
    /// The classifier. The weights are those of the registered model of this name.
    Classifier,
}

impl Exported {
    /// As `make_inputs.py` and the files' names have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pyramid => "pyramid",
            Self::Classifier => "classifier",
        }
    }
}

impl SparkInputs {
    /// Where the file lies in the folder of all inputs.
    pub fn path(&self, folder: &Path) -> PathBuf {
        let Self { model, batch, size, mask_ratio, exported } = self;
        let kind = exported.map_or(String::new(), |exported| format!("-{}", exported.name()));
        folder.join(format!("spark-{model}{kind}-{batch}x{size}px-{mask_ratio}.safetensors"))
    }

    /// The network's `.pt2` file that belongs to the file `inputs`.
    pub fn pt2(inputs: &Path) -> PathBuf {
        inputs.with_extension("pt2")
    }

    /// The model that the weights are of: its registered name, or its file.
    fn weights_of(&self, path: &Path) -> String {
        match self.exported {
            Some(Exported::Pyramid) => Self::pt2(path).display().to_string(),
            _ => self.model.clone(),
        }
    }

    /// Writes weights, images and mask unless they are there. A `.pt2` file must be.
    ///
    /// # Errors
    /// There is no such model or it does not take such images; the disk is full.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = self.path(folder);
        if path.exists() {
            return Ok(path);
        }
        tch::manual_seed(SEED as i64);
        let store = nn::VarStore::new(Device::Cpu);
        let spark = build(&self.weights_of(&path), &store)?;
        let grid = spark.patch_grid((self.size, self.size))?;
        let images = [self.batch, 3, self.size, self.size];
        let mut tensors: StateDict = store
            .variables()
            .into_iter()
            .map(|(name, tensor)| (format!("{WEIGHTS}{name}"), tensor))
            .collect();
        tensors.insert(IMAGES.into(), Tensor::randn(images, (Kind::Float, Device::Cpu)));
        tensors.insert(ACTIVE.into(), self.draw_mask(grid)?.active((1, 1)));
        write_safetensors(&path, &tensors, &Default::default())?;
        Ok(path)
    }

    fn draw_mask(&self, grid: Size) -> Result<Rc<PatchMask>> {
        ensure!(
            (0.0..1.0).contains(&self.mask_ratio),
            "the mask ratio is {}, but it must be in [0, 1)",
            self.mask_ratio
        );
        let generators = (0..self.batch).map(|image| Rng::new(SEED, &[image as u64]));
        let keep = mask::keep_count((grid.0 * grid.1) as usize, self.mask_ratio);
        Ok(mask::draw(generators, grid, keep, Device::Cpu)?)
    }
}

/// A SparK model without drop-path, whose draws the other side could not repeat.
///
/// # Errors
/// There is no such model.
pub fn build(model: &str, store: &nn::VarStore) -> Result<Spark> {
    let model = models::find(model)?;
    let build = |path: &nn::Path| model.build(path, &BuildOptions::default());
    Ok(Spark::new(&store.root(), DECODER_WIDTH, build)?)
}

/// Copies weights by their names into every variable of `store`. Those of `timm`, a network of that
/// family under timm's names, are looked for under ours.
///
/// # Errors
/// One is missing, or of another shape.
pub fn load_weights(
    store: &nn::VarStore,
    tensors: &mut StateDict,
    path: &Path,
    timm: Option<Family>,
) -> Result<()> {
    let ours = |name: &str| {
        let own = Naming::Timm.from(timm?, name.strip_prefix(ENCODER)?)?;
        Some(format!("{ENCODER}{own}"))
    };
    for (name, mut variable) in store.variables() {
        let name = ours(&name).unwrap_or(name);
        let weight = take(tensors, &format!("{WEIGHTS}{name}"), path)?;
        ensure!(
            weight.size() == variable.size(),
            "{name} in {} is of shape {:?}, but the model's is {:?}",
            path.display(),
            weight.size(),
            variable.size()
        );
        tch::no_grad(|| variable.copy_(&weight));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_weights_images_and_a_mask_of_the_ratio() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = SparkInputs {
            model: "resnet18".into(),
            exported: None,
            batch: 2,
            size: 96,
            mask_ratio: 0.6,
        };
        let path = inputs.write(folder.path()).unwrap();
        let mut tensors = backbone::weights::read(&path).unwrap().tensors;
        assert_eq!(tensors[IMAGES].size(), [2, 3, 96, 96]);
        // 9 patches an image, of which 3.6 stay: 4.
        assert_eq!(tensors[ACTIVE].sum(Kind::Int64).int64_value(&[]), 8);
        let store = nn::VarStore::new(Device::Cpu);
        build("resnet18", &store).unwrap();
        load_weights(&store, &mut tensors, &path, None).unwrap();
        assert_eq!(tensors.len(), 2, "every weight is the model's");
        let error = load_weights(&store, &mut tensors, &path, None).unwrap_err().to_string();
        assert!(error.contains("has no tensor \"model."), "{error}");
    }
}
