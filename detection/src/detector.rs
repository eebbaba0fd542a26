//! A detector as commands use it: the model, its variables, and how it is run.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use backbone::Mode;
use backbone::models::Model;
use backbone::plugin::Plugin;
use engine::remote::find_model;
use tch::{Device, Kind, Tensor, nn};

use crate::modeling::MaskRcnn;
use crate::modeling::weights::BOTTOM_UP;
use crate::settings::DetectorSettings;

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
    /// The detector of `settings` for so many classes, with random weights of libtorch's
    /// generator (`tch::manual_seed`), but for those in a `.pt2` file; frozen stages need no
    /// gradient. The backbone is `model`, if it is known already.
    ///
    /// # Errors
    /// Settings out of range, a plugin or file that can't be loaded, more frozen parts
    /// than there are.
    pub fn build(
        settings: &DetectorSettings,
        model: Option<&Model>,
        num_classes: i64,
        device: Device,
    ) -> Result<Self> {
        let config = settings.model_config(num_classes)?;
        let store = nn::VarStore::new(device);
        let plugin = settings.backbone_plugin.is_some();
        let model = match &settings.backbone_plugin {
            None => match model {
                Some(model) => MaskRcnn::of_model(&store, &config, model)?,
                None => MaskRcnn::of_model(&store, &config, &find_model(settings.backbone())?)?,
            },
            Some(library) => {
                let network = Plugin::open(library)?.create(settings.backbone())?;
                network.register(&(store.root() / "backbone" / "bottom_up"))?;
                network.freeze(settings.freeze_at)?;
                MaskRcnn::new(&store.root(), &config, Box::new(network))?
            }
        };
        let detector = Self { store, model, plugin };
        detector.mark_trainable(settings)?;
        Ok(detector)
    }

    /// Says of every parameter of a backbone that is no plugin's whether it learns.
    fn mark_trainable(&self, settings: &DetectorSettings) -> Result<()> {
        if self.plugin {
            return Ok(());
        }
        let parts = self.model.bottom_up().stages().len() + 1;
        ensure!(
            settings.freeze_at <= parts,
            "freeze-at is {}, but {} has {parts} stages, the stem among them",
            settings.freeze_at,
            settings.backbone()
        );
        let norms_learn = settings.norms_learn()?;
        let variables = self.variables();
        for (name, variable) in &variables {
            let Some(canonical) = name.strip_prefix(BOTTOM_UP) else { continue };
            let norm = name.rsplit_once('.').map_or("", |(norm, _)| norm);
            let affine = canonical.ends_with(".weight") || canonical.ends_with(".bias");
            if affine && norms_learn && variables.contains_key(&format!("{norm}.running_mean")) {
                let _ = variable.set_requires_grad(true);
            }
            let index = self.model.bottom_up().stage_index(canonical);
            if index.is_some_and(|index| index < settings.freeze_at) {
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
