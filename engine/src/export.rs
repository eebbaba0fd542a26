//! A model's tensors to the files of other frameworks.

mod card;
mod hub;

use std::path::Path;

use backbone::graph::GraphModel;
use backbone::models::Model;
use backbone::weights::{self, Naming, StateDict, TimmConfig};
use backbone::{Error, Result};
use clap::ValueEnum;

pub use card::{Card, CardTask, without_folders};
pub use hub::{HubFlags, write_hub_folder};

/// A framework to export to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Folder with config.json and model.safetensors.
    Timm,
    /// Folder to upload to the Hugging Face hub: timm's, with a model card.
    Hub,
    /// Names of the official repositories, .pth; of a network from a .pt2 file its own.
    #[value(alias = "own")]
    Official,
    /// torchvision's names, .pth.
    Torchvision,
    /// detectron2's names, .pkl.
    Detectron2,
    /// mmdet's and mmpretrain's names under `backbone.`, .pth.
    Mmdet,
    /// What torch.export.load reads, .pt2, of a network from such a file.
    Pt2,
}

impl ExportFormat {
    fn naming(self) -> Naming {
        match self {
            Self::Timm | Self::Hub => Naming::Timm,
            Self::Official | Self::Pt2 => Naming::Official,
            Self::Torchvision => Naming::Torchvision,
            Self::Detectron2 => Naming::Detectron2,
            Self::Mmdet => Naming::Mmdet,
        }
    }

    /// What a file of `model` without a name of its own ends in.
    pub fn suffix(self, model: &Model) -> &'static str {
        match self {
            Self::Timm => "_timm",
            Self::Hub => "_hub",
            Self::Official if model.graph().is_some() => "_spark.pth",
            Self::Official => "_official.pth",
            Self::Torchvision => "_torchvision.pth",
            Self::Detectron2 => "_detectron2.pkl",
            Self::Mmdet => "_mmdet.pth",
            Self::Pt2 => "_spark.pt2",
        }
    }

    /// Writes a model's tensors (canonical names) to `path`, for the hub without the card
    /// ([`write_hub_folder`]); `config` is what timm is told of them. Of a network from a `.pt2` file it names the architecture, which is
    /// otherwise unknown.
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
        if let Some(graph) = model.graph() {
            return self.write_graph(path, graph, tensors, config);
        }
        match self {
            Self::Timm | Self::Hub => {
                let config = config.unwrap_or_else(|| TimmConfig::imagenet(model.name.as_ref()));
                let config = with_channels_of(config, model, tensors);
                let tensors = weights::export(model.family(), self.naming(), tensors)?;
                weights::write_timm_folder(path, &config, &tensors)
            }
            Self::Pt2 => {
                let rule = format!("{} was not read from a .pt2 file", model.name);
                Err(Error::invalid("format", "pt2", rule))
            }
            _ => weights::save(path, model.family(), self.naming(), tensors),
        }
    }

    /// The same of a network from a `.pt2` file, which keeps its names.
    fn write_graph(
        self,
        path: &Path,
        graph: &GraphModel,
        tensors: &StateDict,
        config: Option<TimmConfig>,
    ) -> Result<()> {
        let refuse = |format: &str, way: &str| {
            let rule = format!("{} was read from a .pt2 file: {way}", graph.name());
            Err(Error::invalid("format", format, rule))
        };
        let rule = "it computes nothing, and is not exported";
        weights::check_finite("the model", tensors, rule)?;
        match (self, config) {
            (Self::Official, _) => weights::write(path, &state_dict(graph, tensors)?),
            (Self::Pt2, _) => graph.write_pt2(path, tensors),
            (Self::Timm | Self::Hub, Some(config)) => {
                let config = with_channels(config, graph.in_chans());
                weights::write_timm_folder(path, &config, &state_dict(graph, tensors)?)
            }
            (Self::Timm | Self::Hub, None) => {
                let format = if self == Self::Hub { "hub" } else { "timm" };
                refuse(format, "--timm-name NAME says which of timm's models it is")
            }
            (other, _) => refuse(
                &other.naming().to_string(),
                "it has its own names, which official and pt2 write",
            ),
        }
    }
}

/// `config` with the name that timm has for a network from a `.pt2` file: none without one, as
/// the file's own name is nothing to timm.
///
/// # Errors
/// A name for a registered model, which has its own.
pub fn named_for_timm(
    model: &Model,
    config: Option<TimmConfig>,
    name: Option<String>,
) -> Result<Option<TimmConfig>> {
    if model.graph().is_none() {
        let rule = format!("{} has a name of timm's", model.name);
        return name.map_or(Ok(config), |name| Err(Error::invalid("timm-name", name, rule)));
    }
    let config = config.unwrap_or_else(|| TimmConfig::imagenet(model.name.as_ref()));
    Ok(name.map(|architecture| TimmConfig { architecture, ..config }))
}

/// A network's whole state dict: also what none of its maps depends on, and what was put on it, such
/// as a classifier, in place of anything of the same name.
fn state_dict(graph: &GraphModel, tensors: &StateDict) -> Result<StateDict> {
    let mut all = graph.state_dict(tensors)?;
    all.extend(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())));
    Ok(all)
}

/// `config` for as many channels as the stem takes.
fn with_channels_of(config: TimmConfig, model: &Model, tensors: &StateDict) -> TimmConfig {
    let stem = weights::stem_weight(model.family()).and_then(|name| tensors.get(name));
    with_channels(config, stem.map_or(3, |weight| weight.size()[1]))
}

fn with_channels(mut config: TimmConfig, in_chans: i64) -> TimmConfig {
    config.in_chans = in_chans;
    // Statistics of another number of channels say nothing.
    config.mean.resize(in_chans as usize, 0.5);
    config.std.resize(in_chans as usize, 0.5);
    config
}

/// The shortest decimals that are these float32, as float64: 0.485, not
/// 0.48500001.
pub fn decimals(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| value.to_string().parse().unwrap_or(f64::from(*value))).collect()
}
