//! Architectures by name.

mod convnext;
mod cost;
mod file;
mod regnet;
mod resnet;
mod small;
mod staged;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use tch::nn::Path;

pub use convnext::{Config as ConvNeXtConfig, ConvNeXt};
pub use cost::Cost;
pub use file::{is_file, local, parts as file_parts, short_name, with_stages};
pub use regnet::{Config as RegNetConfig, RegNet};
pub use resnet::{BlockKind, Config as ResNetConfig, ResNet};
pub use small::{Build, SMALL};

use crate::graph::GraphModel;
use crate::{Backbone, Error, Init, Result};

/// Which published architecture a model is of: decides how its parameters are
/// called in other frameworks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// He et al. 2015, and ResNeXt and wide variants. In-memory names are timm's.
    ResNet,
    /// Liu et al. 2022. In-memory names are the official repository's.
    ConvNeXt,
    /// Radosavovic et al. 2020, with squeeze-and-excitation (RegNetY). In-memory
    /// names are timm's.
    RegNet,
    /// A reader's own network, written in Rust or read from a `.pt2` file: its names are
    /// the same in every file.
    Custom,
}

/// What a model is built with besides its architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BuildOptions {
    /// Channels of the input image.
    pub in_chans: i64,
    /// Drop-path rate of the last block; earlier ones rise to it linearly. A network from a
    /// `.pt2` file keeps its own rates with 0.
    pub drop_path_rate: f64,
    /// Leaves the weights of convolutions and linear layers as the memory
    /// holds them, when they are to be loaded right after (or only their names
    /// and shapes matter): saves drawing them.
    pub uninitialised: bool,
}

impl BuildOptions {
    /// `init`, unless weights stay as they are.
    fn init(&self, init: Init) -> Init {
        if self.uninitialised { Init::Uninitialised } else { init }
    }
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { in_chans: 3, drop_path_rate: 0.0, uninitialised: false }
    }
}

#[derive(Debug, Clone)]
enum Architecture {
    ResNet(ResNetConfig),
    ConvNeXt(ConvNeXtConfig),
    RegNet(RegNetConfig),
    Graph(Arc<GraphModel>),
}

/// A registered model, or a network from a `.pt2` file. Clones share the file's content.
#[derive(Debug, Clone)]
pub struct Model {
    /// timm's name; a file's without its ending.
    pub name: Cow<'static, str>,
    architecture: Architecture,
    /// Drop-path rate that the official SparK pretraining uses; for models it
    /// does not list, that of the next larger one (of the ResNets for a RegNet, the
    /// largest one's for a larger RegNet), and half of it for ConvNeXts smaller than
    /// Tiny; 0 for a network from a file, which keeps its own rates.
    pub pretrain_drop_path: f64,
}

use BlockKind::{Basic, Bottleneck};

const fn registered_as(
    name: &'static str,
    architecture: Architecture,
    pretrain_drop_path: f64,
) -> Model {
    Model { name: Cow::Borrowed(name), architecture, pretrain_drop_path }
}

const fn resnet(name: &'static str, config: ResNetConfig, pretrain_drop_path: f64) -> Model {
    registered_as(name, Architecture::ResNet(config), pretrain_drop_path)
}

const fn convnext(name: &'static str, depths: [usize; 4], dim: i64, drop_path: f64) -> Model {
    let config = ConvNeXtConfig::doubling(depths, dim);
    registered_as(name, Architecture::ConvNeXt(config), drop_path)
}

const fn regnety(
    name: &'static str,
    depths: [usize; 4],
    widths: [i64; 4],
    group_width: i64,
    pretrain_drop_path: f64,
) -> Model {
    let config = RegNetConfig { depths, widths, group_width };
    registered_as(name, Architecture::RegNet(config), pretrain_drop_path)
}

const fn plain(block: BlockKind, layers: [usize; 4]) -> ResNetConfig {
    ResNetConfig::plain(block, layers)
}

/// Every registered model.
pub const MODELS: &[Model] = &[
    resnet("resnet18", plain(Basic, [2, 2, 2, 2]), 0.05),
    resnet("resnet34", plain(Basic, [3, 4, 6, 3]), 0.05),
    resnet("resnet50", plain(Bottleneck, [3, 4, 6, 3]), 0.05),
    resnet("resnet101", plain(Bottleneck, [3, 4, 23, 3]), 0.08),
    resnet("resnet152", plain(Bottleneck, [3, 8, 36, 3]), 0.10),
    resnet("resnet200", plain(Bottleneck, [3, 24, 36, 3]), 0.15),
    resnet("resnext50_32x4d", plain(Bottleneck, [3, 4, 6, 3]).grouped(32, 4), 0.05),
    resnet("resnext101_32x8d", plain(Bottleneck, [3, 4, 23, 3]).grouped(32, 8), 0.08),
    resnet("wide_resnet50_2", plain(Bottleneck, [3, 4, 6, 3]).grouped(1, 128), 0.05),
    resnet("wide_resnet101_2", plain(Bottleneck, [3, 4, 23, 3]).grouped(1, 128), 0.08),
    convnext("convnext_atto", [2, 2, 6, 2], 40, 0.1),
    convnext("convnext_femto", [2, 2, 6, 2], 48, 0.1),
    convnext("convnext_pico", [2, 2, 6, 2], 64, 0.1),
    convnext("convnext_nano", [2, 2, 8, 2], 80, 0.1),
    convnext("convnext_tiny", [3, 3, 9, 3], 96, 0.2),
    convnext("convnext_small", [3, 3, 27, 3], 96, 0.2),
    convnext("convnext_base", [3, 3, 27, 3], 128, 0.3),
    convnext("convnext_large", [3, 3, 27, 3], 192, 0.4),
    regnety("regnety_016", [2, 6, 17, 2], [48, 120, 336, 888], 24, 0.05),
    regnety("regnety_032", [2, 5, 13, 1], [72, 216, 576, 1512], 24, 0.05),
    regnety("regnety_040", [2, 6, 12, 2], [128, 192, 512, 1088], 64, 0.05),
    regnety("regnety_080", [2, 4, 10, 1], [168, 448, 896, 2016], 56, 0.08),
    regnety("regnety_120", [2, 5, 11, 1], [224, 448, 896, 2240], 112, 0.10),
    regnety("regnety_160", [2, 4, 11, 1], [224, 448, 1232, 3024], 112, 0.15),
    regnety("regnety_320", [2, 5, 12, 1], [232, 696, 1392, 3712], 232, 0.15),
];

/// The model of this name: a registered one, or the network in the `.pt2` file that the name is.
/// Behind the file's name may stand the modules whose outputs are the stages:
/// `my.pt2:layer1,layer2,layer3,layer4`.
///
/// # Errors
/// No such model; the message lists those there are. A file that cannot be read, or that holds no
/// network that runs here.
pub fn find(name: &str) -> Result<Model> {
    match registered(name)? {
        Some(model) => Ok(model.clone()),
        None => Ok(Model::of_graph(file::open(name)?)),
    }
}

/// The registered model of this name; none for the name of a file, which is not looked at.
///
/// # Errors
/// As [`find`], for a name that is neither.
pub fn registered(name: &str) -> Result<Option<&'static Model>> {
    let found = MODELS.iter().find(|model| model.name == name);
    if found.is_some() || is_file(name) {
        return Ok(found);
    }
    let names: Vec<&str> = MODELS.iter().map(|model| model.name.as_ref()).collect();
    let rule = format!(
        "it must be one of {}, or a .pt2 file that torch.export has written",
        names.join(", ")
    );
    Err(Error::invalid("model", format!("{name:?}"), rule))
}

/// Strides of every registered model's last stage.
const REGISTERED_STRIDE: i64 = 32;

impl Model {
    /// The network that was read from a file, or that a checkpoint carried.
    pub fn of_graph(graph: GraphModel) -> Self {
        Self {
            name: Cow::Owned(graph.name().to_owned()),
            // A host may drop copies on other threads: what counts them must bear that.
            #[allow(clippy::arc_with_non_send_sync)]
            architecture: Architecture::Graph(Arc::new(graph)),
            pretrain_drop_path: 0.0,
        }
    }

    /// What was read from a file; none for a registered model.
    pub fn graph(&self) -> Option<&Arc<GraphModel>> {
        match &self.architecture {
            Architecture::Graph(graph) => Some(graph),
            _ => None,
        }
    }

    /// A backbone whose variables lie under `path`: randomly initialised, or with the weights that
    /// its file has.
    ///
    /// # Errors
    /// Options out of range.
    pub fn build(&self, path: &Path, options: &BuildOptions) -> Result<Box<dyn Backbone>> {
        let BuildOptions { in_chans, drop_path_rate, .. } = *options;
        if in_chans < 1 {
            return Err(Error::invalid("in_chans", in_chans, "an image has at least one channel"));
        }
        if !(0.0..1.0).contains(&drop_path_rate) {
            return Err(Error::invalid("drop_path_rate", drop_path_rate, "it must be in [0, 1)"));
        }
        Ok(match &self.architecture {
            Architecture::ResNet(config) => Box::new(ResNet::new(path, config, options)),
            Architecture::ConvNeXt(config) => Box::new(ConvNeXt::new(path, config, options)),
            Architecture::RegNet(config) => Box::new(RegNet::new(path, config, options)),
            Architecture::Graph(graph) => graph.build(path, options)?,
        })
    }

    /// The architecture's family.
    pub fn family(&self) -> Family {
        match self.architecture {
            Architecture::ResNet(_) => Family::ResNet,
            Architecture::ConvNeXt(_) => Family::ConvNeXt,
            Architecture::RegNet(_) => Family::RegNet,
            Architecture::Graph(_) => Family::Custom,
        }
    }

    /// Stride of the last stage: the side of a mask patch in pixels.
    pub fn total_stride(&self) -> i64 {
        let stages = self.graph().map(|graph| graph.stages());
        stages.map_or(REGISTERED_STRIDE, |stages| stages.last().map_or(1, |stage| stage.stride))
    }

    /// Channels of the images that it takes where nothing else is said: three, or those that the
    /// file's network takes.
    pub fn usual_in_chans(&self) -> i64 {
        self.graph().map_or(3, |graph| graph.in_chans())
    }

    /// Why the network cannot be pretrained, if it cannot.
    pub fn refusal(&self) -> Option<&str> {
        self.graph()?.refusal()
    }

    /// Parameters and multiply-adds of the network with a classifier of
    /// `classes` (0: without) on one image of `height × width` pixels. A network from a
    /// file has its own number of input channels.
    pub fn cost(&self, in_chans: i64, classes: i64, height: i64, width: i64) -> Cost {
        match &self.architecture {
            Architecture::ResNet(config) => config.cost(in_chans, classes, height, width),
            Architecture::ConvNeXt(config) => config.cost(in_chans, classes, height, width),
            Architecture::RegNet(config) => config.cost(in_chans, classes, height, width),
            Architecture::Graph(graph) => {
                let mut cost = graph.cost(height, width);
                let width = graph.stages().last().map_or(0, |stage| stage.channels);
                cost.linear(width, classes, 1);
                cost
            }
        }
    }
}

impl fmt::Display for Model {
    /// Name, parameters and FLOPs as published: with 1000 classes, 224 px,
    /// multiply-adds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = self.cost(3, 1000, 224, 224);
        write!(
            f,
            "{:<18} {:>6.1} M parameters {:>6.1} G FLOPs",
            self.name,
            cost.params as f64 / 1e6,
            cost.flops as f64 / 1e9
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters in millions and multiply-adds in billions as published
    /// (timm's and torchvision's tables, SparK's for ResNet-200 and ConvNeXt, the
    /// paper's for RegNet).
    #[test]
    fn costs_equal_the_published_ones() {
        let published = [
            ("resnet18", 11.7, 1.8),
            ("resnet34", 21.8, 3.7),
            ("resnet50", 25.6, 4.1),
            ("resnet101", 44.5, 7.8),
            ("resnet152", 60.2, 11.5),
            ("resnet200", 64.7, 15.0),
            ("resnext50_32x4d", 25.0, 4.2),
            ("resnext101_32x8d", 88.8, 16.4),
            ("wide_resnet50_2", 68.9, 11.4),
            ("wide_resnet101_2", 126.9, 22.8),
            ("convnext_atto", 3.7, 0.55),
            ("convnext_femto", 5.2, 0.79),
            ("convnext_pico", 9.1, 1.37),
            ("convnext_nano", 15.6, 2.46),
            ("convnext_tiny", 28.6, 4.5),
            ("convnext_small", 50.2, 8.7),
            ("convnext_base", 88.6, 15.4),
            ("convnext_large", 197.8, 34.4),
            ("regnety_016", 11.2, 1.6),
            ("regnety_032", 19.4, 3.2),
            ("regnety_040", 20.6, 4.0),
            ("regnety_080", 39.2, 8.0),
            ("regnety_120", 51.8, 12.1),
            ("regnety_160", 83.6, 15.9),
            ("regnety_320", 145.0, 32.3),
        ];
        assert_eq!(published.len(), MODELS.len());
        for (name, params, flops) in published {
            let cost = find(name).unwrap().cost(3, 1000, 224, 224);
            let (got_params, got_flops) = (cost.params as f64 / 1e6, cost.flops as f64 / 1e9);
            // Half a unit of the published last digit; tables round either way.
            assert!((got_params - params).abs() < 0.06, "{name}: {got_params} M");
            // And 2 % of small ones, which are published with two digits.
            let rounding = 0.11f64.min(0.02 * flops);
            assert!((got_flops - flops).abs() < rounding, "{name}: {got_flops} G");
        }
    }

    #[test]
    fn a_network_has_the_parameters_that_its_cost_says() {
        for name in ["resnet18", "resnext50_32x4d", "convnext_tiny", "regnety_016"] {
            let model = find(name).unwrap();
            let store = tch::nn::VarStore::new(tch::Device::Cpu);
            let options = BuildOptions { in_chans: 5, drop_path_rate: 0.1, uninitialised: true };
            model.build(&store.root(), &options).unwrap();
            let count: usize = store.trainable_variables().iter().map(|t| t.numel()).sum();
            assert_eq!(count as i64, model.cost(5, 0, 64, 64).params, "{name}");
        }
    }

    #[test]
    fn unknown_names_and_options_are_refused() {
        let error = find("resnet51").unwrap_err().to_string();
        assert!(error.contains("\"resnet51\"") && error.contains("resnet50"), "{error}");
        assert!(error.contains("or a .pt2 file"), "{error}");
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let build = |options| {
            let result = find("resnet18").unwrap().build(&store.root(), &options);
            result.unwrap_err().to_string()
        };
        let error = build(BuildOptions { in_chans: 0, ..BuildOptions::default() });
        assert_eq!(error, "in_chans is 0, but an image has at least one channel");
        let error = build(BuildOptions { drop_path_rate: 1.0, ..BuildOptions::default() });
        assert_eq!(error, "drop_path_rate is 1, but it must be in [0, 1)");
    }
}
