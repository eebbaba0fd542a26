//! A detector as commands use it: the model, its variables, and how it is run.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use backbone::plugin::Plugin;
use backbone::{DropPathDraws, Mode};
use tch::{Device, Kind, Tensor, nn};

use crate::modeling::config::BackboneNorm;
use crate::modeling::weights::BOTTOM_UP;
use crate::modeling::{MaskRcnn, ModelConfig};
use crate::train::TrainConfig;

/// Mask R-CNN with its variables.
#[derive(Debug)]
pub struct Detector {
    /// Every parameter and buffer.
    pub store: nn::VarStore,
    /// The network.
    pub model: MaskRcnn,
    /// Whether the backbone is a plugin's, which knows no other arithmetic than
    /// its own and draws drop-path by itself.
    pub plugin: bool,
}

impl Detector {
    /// The detector of `config` for so many classes, with random weights drawn
    /// from its seed; frozen parts need no gradient.
    ///
    /// # Errors
    /// Settings out of range, a plugin that can't be loaded, more frozen parts
    /// than there are.
    pub fn build(config: &TrainConfig, num_classes: i64, device: Device) -> Result<Self> {
        tch::manual_seed(config.seed as i64);
        let settings = config.model(num_classes)?;
        let store = nn::VarStore::new(device);
        let plugin = config.backbone_plugin.is_some();
        let model = match &config.backbone_plugin {
            None => MaskRcnn::build(&store, &settings)?,
            Some(library) => {
                let network = Plugin::open(library)?.create(config.backbone())?;
                network.register(&(store.root() / "backbone" / "bottom_up"))?;
                network.freeze(config.freeze)?;
                MaskRcnn::new(&store.root(), &settings, Box::new(network))?
            }
        };
        let detector = Self { store, model, plugin };
        detector.mark_trainable(config)?;
        Ok(detector)
    }

    /// Says of every parameter of a registered backbone whether it learns.
    fn mark_trainable(&self, config: &TrainConfig) -> Result<()> {
        if self.plugin {
            return Ok(());
        }
        let parts = self.model.bottom_up().stages().len() + 1;
        ensure!(
            config.freeze <= parts,
            "freeze is {}, but {} has {parts} parts: the stem and the stages",
            config.freeze,
            config.backbone()
        );
        let settings = ModelConfig::preset(&config.detector)?;
        // mmdet's `norm_eval` keeps statistics, but learns weights and biases.
        let norms_learn = settings.backbone_norm == BackboneNorm::Batch;
        let variables = self.variables();
        for (name, variable) in &variables {
            let Some(canonical) = name.strip_prefix(BOTTOM_UP) else { continue };
            let norm = name.rsplit_once('.').map_or("", |(norm, _)| norm);
            let affine = canonical.ends_with(".weight") || canonical.ends_with(".bias");
            if affine && norms_learn && variables.contains_key(&format!("{norm}.running_mean")) {
                let _ = variable.set_requires_grad(true);
            }
            let index = self.model.bottom_up().stage_index(canonical);
            if index.is_some_and(|index| index < config.freeze) {
                let _ = variable.set_requires_grad(false);
            }
        }
        Ok(())
    }

    /// Every parameter and buffer by its name in memory, sharing storage.
    pub fn variables(&self) -> BTreeMap<String, Tensor> {
        self.store.variables().into_iter().collect()
    }

    /// Where the variables are.
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// A pass in evaluation.
    pub fn eval_mode(&self, compute: Option<Kind>) -> Mode {
        Mode::eval().with_compute(if self.plugin { None } else { compute })
    }

    /// A training pass; `draw` gives drop-path's uniform draws for so many blocks,
    /// `[blocks, images]`.
    pub fn train_mode(&self, config: &TrainConfig, draw: impl FnOnce(usize) -> Tensor) -> Mode {
        let mode = Mode::train().with_freeze_at(config.freeze);
        if self.plugin {
            return mode;
        }
        let blocks = self.model.bottom_up().drop_path_blocks();
        let draws = if blocks == 0 || config.drop_path.unwrap_or(0.0) == 0.0 {
            DropPathDraws::Off
        } else {
            DropPathDraws::Table(draw(blocks))
        };
        mode.with_drop_path(draws).with_compute(config.precision.compute())
    }

    /// Refuses arithmetic that a plugin does not do.
    ///
    /// # Errors
    /// Float64 with a plugin.
    pub fn use_kind(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Double if self.plugin => bail!("a plugin's backbone computes in float32 alone"),
            Kind::Double => self.store.double(),
            _ => {}
        }
        Ok(())
    }
}
