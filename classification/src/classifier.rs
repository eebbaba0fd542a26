//! A classifier: backbone, global average pool, ConvNeXt's norm, linear head.
//!
//! Parameters are called as in memory everywhere: the backbone's by their
//! canonical names, the head `fc` of a ResNet and `head` of a ConvNeXt, whose
//! `norm` stands before it, and of a network from a `.pt2` file; [`backbone::weights`]
//! translates.

use std::path::Path;

use anyhow::{Result, ensure};
use backbone::layers::{Linear, global_avg_pool};
use backbone::models::{BuildOptions, Family, Model};
use backbone::weights::{self, LoadOptions, LoadReport, StateDict, WeightFile};
use backbone::{Backbone, FeatureMap, Init, Mode, NormKind};
use engine::optim::{
    LayerGrouping, LayerPosition, ParamGroup, has_weight_decay, layered_param_groups, param_groups,
};
use tch::{Device, Kind, Tensor, nn};
use words::counted;

/// Epsilon of the norm before the head.
const NORM_EPS: f64 = 1e-6;

/// What a classifier is built with besides its backbone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassifierOptions {
    /// Classes it tells apart.
    pub num_classes: i64,
    /// Channels of the images.
    pub in_chans: i64,
    /// Drop-path rate of the last block.
    pub drop_path: f64,
    /// What the head's first weights (a truncated normal of deviation 0.02) are
    /// multiplied by.
    pub head_init_scale: f64,
    /// Leaves weights as the memory holds them, when they are loaded right after.
    pub uninitialised: bool,
}

impl ClassifierOptions {
    /// Three channels, no drop-path, the head as drawn.
    pub fn new(num_classes: i64) -> Self {
        Self {
            num_classes,
            in_chans: 3,
            drop_path: 0.0,
            head_init_scale: 1.0,
            uninitialised: false,
        }
    }
}

/// A classifier with its variables.
#[derive(Debug)]
pub struct Classifier {
    model: Model,
    store: nn::VarStore,
    backbone: Box<dyn Backbone>,
    /// Weight and bias, `[D]`.
    norm: Option<(Tensor, Tensor)>,
    head: Linear,
    num_classes: i64,
}

impl Classifier {
    /// A classifier with random weights from libtorch's generator
    /// (`tch::manual_seed`).
    ///
    /// # Errors
    /// Options out of range; a network from a `.pt2` file that has a module of the head's name.
    pub fn build(model: &Model, options: &ClassifierOptions, device: Device) -> Result<Self> {
        let ClassifierOptions { num_classes, in_chans, uninitialised, .. } = *options;
        ensure!(num_classes >= 1, "num_classes is {num_classes}, but it must be at least 1");
        let store = nn::VarStore::new(device);
        let root = store.root();
        let drop_path_rate = options.drop_path;
        let backbone =
            model.build(&root, &BuildOptions { in_chans, drop_path_rate, uninitialised })?;
        let width = backbone.stages().last().map_or(0, |stage| stage.channels);
        // A `.pt2` file's network may have a module of the norm's name.
        let is_normed = backbone.norm() == NormKind::Layer && model.graph().is_none();
        let norm = is_normed.then(|| {
            let path = &root / "norm";
            let start = |name, value| {
                path.get(name)
                    .unwrap_or_else(|| Init::Constant(value).parameter(&path, name, &[width]))
            };
            (start("weight", 1.0), start("bias", 0.0))
        });
        let init = if uninitialised { Init::Uninitialised } else { Init::TRUNC_NORMAL_02 };
        let name = head_name(model.family());
        let taken = store.variables().keys().any(|other| is_within(name, other));
        ensure!(
            !taken,
            "{} has tensors called {name}.…, which is what the classifier is called: rename that \
             module and export it again",
            model.name
        );
        let path = name.split('.').fold(root, |path, part| path / part);
        let head = Linear::new(&path, width, num_classes, init);
        if let Some(mut weight) = path.get("weight").filter(|_| options.head_init_scale != 1.0) {
            tch::no_grad(|| weight *= options.head_init_scale);
        }
        Ok(Self { model: model.clone(), store, backbone, norm, head, num_classes })
    }

    /// The model that the backbone is of.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The backbone alone.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// Classes it tells apart.
    pub fn num_classes(&self) -> i64 {
        self.num_classes
    }

    /// Every parameter and buffer.
    pub fn store(&self) -> &nn::VarStore {
        &self.store
    }

    /// Element type of the parameters.
    pub fn kind(&self) -> Kind {
        // The store itself keeps saying float32.
        self.head.kind()
    }

    /// Where the variables are.
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// Every parameter and buffer by its name in memory, sharing storage.
    pub fn variables(&self) -> StateDict {
        self.store.variables().into_iter().collect()
    }

    /// Turns all floating-point variables into float64.
    pub fn double(&mut self) {
        self.store.double();
        // The store replaces its tensors' data in place, so that layers follow.
    }

    /// Logits `[N, classes]` of normalised `images` `[N, C, H, W]`.
    ///
    /// # Errors
    /// Images that the backbone does not take.
    pub fn forward(&self, images: &Tensor, mode: &Mode) -> backbone::Result<Tensor> {
        let maps = self.backbone.forward(&FeatureMap::Grid(images.shallow_clone()), mode)?;
        let mut rows = global_avg_pool(&maps[maps.len() - 1]);
        if let Some((weight, bias)) = &self.norm {
            let wide = rows.to_kind(weight.kind());
            rows = wide.layer_norm(weight.size(), Some(weight), Some(bias), NORM_EPS, true);
        }
        Ok(self.head.on_rows(&rows, mode))
    }

    /// Whether the variable `name` is the head's.
    pub fn is_head(&self, name: &str) -> bool {
        is_within(head_name(self.model.family()), name)
    }

    /// Where the variable `name` stands; head and the norm before it stand behind
    /// the backbone.
    pub fn place(&self, name: &str) -> LayerPosition {
        let behind = self.is_head(name) || self.norm.is_some() && name.starts_with("norm.");
        match behind {
            true => LayerPosition::of(name, None),
            false => LayerPosition::in_backbone(self.backbone.as_ref(), name),
        }
    }

    /// How many blocks share a layer in the official recipe.
    pub fn layer_grouping(&self) -> LayerGrouping {
        match self.model.family() {
            // No recipe is published for RegNetY, a residual network like it.
            Family::ResNet | Family::RegNet => LayerGrouping::of_resnet(self.third_stage_blocks()),
            Family::ConvNeXt | Family::Custom => LayerGrouping::CONVNEXT,
        }
    }

    fn third_stage_blocks(&self) -> usize {
        let places = self.variables().into_keys().map(|name| self.place(&name));
        let third = places.filter(|place| place.stage_index == Some(3));
        third.map(|place| place.block + 1).max().unwrap_or(0)
    }

    /// The parameters in groups whose learning rate is `layer_decay` to the power
    /// of the layers above theirs; weight decay leaves vectors, biases and layer
    /// scales alone.
    pub fn param_groups(&self, layer_decay: f64) -> Vec<ParamGroup> {
        let parameters = self.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
        if layer_decay == 1.0 {
            return param_groups(parameters);
        }
        let placed = parameters.map(|(name, tensor)| {
            let place = self.place(&name);
            (name, tensor, place)
        });
        layered_param_groups(placed.collect(), self.layer_grouping(), layer_decay, has_weight_decay)
    }

    /// Reads a pretrained backbone, from whatever format and naming; the head
    /// stays as it is.
    ///
    /// # Errors
    /// The file fits the backbone only in part.
    pub fn load_backbone(&self, file: &WeightFile) -> Result<LoadReport> {
        let mut target = self.variables();
        target.retain(|name, _| !self.is_head(name));
        let family = self.model.family();
        Ok(weights::load(&target, family, file, &LoadOptions::of(family))?)
    }

    /// Reads a whole classifier, head included.
    ///
    /// # Errors
    /// A head for other classes, or none; a file that fits only in part.
    pub fn load(&self, file: &WeightFile) -> Result<LoadReport> {
        self.check_head(&file.path, file.classes(self.model.family()))?;
        let options = LoadOptions { optional: weights::is_counter, ..LoadOptions::default() };
        Ok(weights::load(&self.variables(), self.model.family(), file, &options)?)
    }

    /// Refuses a head for `found` classes where others are wanted.
    ///
    /// # Errors
    /// That is the case.
    pub fn check_head(&self, path: &Path, found: Option<i64>) -> Result<()> {
        let (path, wanted) = (path.display(), self.num_classes);
        match found {
            Some(found) => ensure!(
                found == wanted,
                "{path} has {}, expected {wanted}; with --reset-head its backbone is taken and the \
                 head learned anew",
                counted(found, "class")
            ),
            None => ensure!(
                false,
                "{path} has no classifier (no {}.weight); give it with --backbone-weights, or \
                 with --reset-head",
                head_name(self.model.family())
            ),
        }
        Ok(())
    }
}

/// Whether the variable `name` is of the module called `module`, or inside it.
fn is_within(module: &str, name: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}

/// What the head is called in memory.
pub(crate) fn head_name(family: Family) -> &'static str {
    match family {
        Family::ResNet => "fc",
        Family::RegNet => "head.fc",
        Family::ConvNeXt | Family::Custom => "head",
    }
}

#[cfg(test)]
mod tests;
