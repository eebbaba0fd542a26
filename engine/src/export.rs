//! A model's tensors to the files of other frameworks.

use std::path::Path;

use backbone::Result;
use backbone::models::Model;
use backbone::weights::{self, Naming, StateDict, TimmConfig};
use clap::ValueEnum;

/// A framework to export to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Folder with config.json and model.safetensors.
    Timm,
    /// Names of the official repositories, .pth.
    Official,
    /// torchvision's names, .pth.
    Torchvision,
    /// detectron2's names, .pkl.
    Detectron2,
    /// mmdet's and mmpretrain's names under `backbone.`, .pth.
    Mmdet,
}

impl ExportFormat {
    fn naming(self) -> Naming {
        match self {
            Self::Timm => Naming::Timm,
            Self::Official => Naming::Official,
            Self::Torchvision => Naming::Torchvision,
            Self::Detectron2 => Naming::Detectron2,
            Self::Mmdet => Naming::Mmdet,
        }
    }

    /// What a file without a name of its own ends in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Timm => "_timm",
            Self::Official => "_official.pth",
            Self::Torchvision => "_torchvision.pth",
            Self::Detectron2 => "_detectron2.pkl",
            Self::Mmdet => "_mmdet.pth",
        }
    }

    /// Writes a model's tensors (canonical names) to `path`; `config` is what
    /// timm is told of them.
    ///
    /// # Errors
    /// The framework has no such model, or the file cannot be written.
    pub fn write(
        self,
        path: &Path,
        model: &Model,
        tensors: &StateDict,
        config: Option<TimmConfig>,
    ) -> Result<()> {
        if self == Self::Timm {
            let config = config.unwrap_or_else(|| TimmConfig::imagenet(model.name.as_ref()));
            let config = with_channels_of(config, model, tensors);
            let tensors = weights::export(model.family(), self.naming(), tensors)?;
            return weights::write_timm_folder(path, &config, &tensors);
        }
        weights::save(path, model.family(), self.naming(), tensors)
    }
}

/// `config` for as many channels as the stem takes.
fn with_channels_of(mut config: TimmConfig, model: &Model, tensors: &StateDict) -> TimmConfig {
    let stem = weights::stem_weight(model.family()).and_then(|name| tensors.get(name));
    config.in_chans = stem.map_or(3, |weight| weight.size()[1]);
    // Statistics of another number of channels say nothing.
    config.mean.resize(config.in_chans as usize, 0.5);
    config.std.resize(config.in_chans as usize, 0.5);
    config
}

/// The shortest decimals that are these float32, as float64: 0.485, not
/// 0.48500001.
pub fn decimals(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| value.to_string().parse().unwrap_or(f64::from(*value))).collect()
}
