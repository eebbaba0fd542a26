//! What a detector is, and how it is fed: all that it takes to load and run one, without a word of
//! training.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use backbone::models;
use engine::precision::Precision;
use engine::settings;
use engine::settings::{at_least, decay_rate, merge};
use toml::{Table, Value};

use crate::data::EvalTransform;
use crate::modeling::ModelConfig;
use crate::modeling::config::BackboneNorm;

/// Keys of a [`ModelConfig`] that are settings of their own, or come from the
/// data.
const OWN_KEYS: [&str; 3] = ["backbone", "drop-path", "num-classes"];

/// Former names of keys in `[model]`.
const FORMER_KEYS: [(&str, &str, &str); 4] = [
    ("rpn", "batch", "batch-size-per-image"),
    ("roi", "batch", "batch-size-per-image"),
    ("roi", "score", "score-thresh"),
    ("roi", "detections", "detections-per-image"),
];

settings! {
    /// Which detector.
    #[command(next_help_heading = "Model")]
    pub struct DetectorSettings {
        /// Detector that `[model]` of a settings file changes: mask_rcnn_resnet50,
        /// mask_rcnn_convnext_base or mask_rcnn_torchvision
        detector: String = "mask_rcnn_resnet50".into();
        /// Narrower heads and smaller anchors, for small images
        small: bool = false;
        /// Predict masks, not boxes alone
        masks: bool = true;
        /// Backbone, see `pretrain models`, a .pt2 file that torch.export has written, or what a
        /// plugin is told to make; the detector's if not given
        backbone: Option<String>;
        /// Shared library that makes the backbone
        #[arg(value_name = "FILE")]
        backbone_plugin: Option<PathBuf>;
        /// Drop-path rate of the backbone's last block; the detector's, a .pt2 file's own rates, if
        /// not given
        #[arg(value_name = "RATE")]
        drop_path: Option<f64>, decay_rate;
        /// Freeze the backbone's first N stages: 1 the stem, 2 and the first stage, …
        #[arg(value_name = "N", alias = "freeze")]
        freeze_at: usize = 0;
        /// Keep the running statistics of the backbone's batch norms
        norm_eval: bool = false;
        @
        /// What differs from the detector's preset, in the end all of it.
        model: Table = Table::new();
        rename = use_present_keys;
    }
}

settings! {
    /// How images are fed to a detector that is trained.
    #[command(next_help_heading = "Data")]
    pub struct InferenceSettings {
        /// Short side of images in evaluation
        #[arg(value_name = "PIXELS")]
        eval_short_side: usize = 800, at_least(32);
        /// Longest long side in evaluation
        #[arg(value_name = "PIXELS")]
        eval_max_side: usize = 1333;
    }
}

impl InferenceSettings {
    /// Refuses sides that contradict each other.
    ///
    /// # Errors
    /// The longest side is shorter than the short one.
    pub fn check(&self) -> Result<()> {
        Ok(at_least(self.eval_short_side)("eval-max-side", &self.eval_max_side)?)
    }

    /// What images go through.
    pub fn transform(&self) -> EvalTransform {
        EvalTransform { short: self.eval_short_side, max: self.eval_max_side }
    }
}

impl DetectorSettings {
    /// Fills what depends on other settings and refuses what cannot be built.
    ///
    /// # Errors
    /// The first setting that breaks a rule, with its value and the rule.
    pub fn resolve(&mut self, precision: Precision) -> Result<()> {
        let model = self.preset_with_changes()?;
        self.backbone.get_or_insert_with(|| model.backbone.clone());
        let own_rates = self.backbone_plugin.is_some() || models::is_file(self.backbone());
        let usual = if own_rates { 0.0 } else { model.drop_path };
        self.drop_path.get_or_insert(usual);
        self.model = Table::try_from(&model)?;
        self.model.retain(|key, _| !OWN_KEYS.contains(&key));
        self.check(precision)
    }

    fn check(&self, precision: Precision) -> Result<()> {
        self.model_config(1)?;
        if self.backbone_plugin.is_none() {
            models::registered(self.backbone())?;
            return Ok(());
        }
        ensure!(
            precision == Precision::Float32,
            "precision is {precision:?}, but a plugin computes in its parameters' float32"
        );
        let rate = self.drop_path.unwrap_or(0.0);
        ensure!(
            rate == 0.0 && !self.norm_eval,
            "drop-path is {rate} and norm-eval {}, but a plugin has its own: create it with them, \
             as in --backbone '{{\"model\": \"resnet50\", \"drop_path_rate\": 0.1, \"norm_eval\": \
             true}}'",
            self.norm_eval
        );
        Ok(())
    }

    /// The detector's preset with `[model]` laid over it.
    fn preset_with_changes(&self) -> Result<ModelConfig> {
        let mut preset = ModelConfig::preset(&self.detector)
            .map_err(|error| anyhow!("{}", error.to_string().replacen("preset", "detector", 1)))?;
        if self.small {
            preset = preset.small();
        }
        let mut table = Table::try_from(&preset)?;
        for key in OWN_KEYS {
            ensure!(
                !self.model.contains_key(key),
                "[model] has {key}, but that is a setting of its own, or comes from the data"
            );
        }
        merge(&mut table, self.model.clone());
        let mut model: ModelConfig =
            table.try_into().context("[model] does not describe a detector")?;
        if !self.masks {
            model.mask_head = None;
        }
        Ok(model)
    }

    /// Whether the backbone's batch norms learn their weights and biases: mmdet's `norm_eval`
    /// keeps statistics alone.
    ///
    /// # Errors
    /// As [`DetectorSettings::resolve`].
    pub fn norms_learn(&self) -> Result<bool> {
        Ok(self.preset_with_changes()?.backbone_norm == BackboneNorm::Batch)
    }

    /// The whole detector, for so many classes.
    ///
    /// # Errors
    /// Settings of the detector out of range.
    pub fn model_config(&self, num_classes: i64) -> Result<ModelConfig> {
        let mut model = self.preset_with_changes()?.with_classes(num_classes);
        if self.norm_eval {
            model.backbone_norm = BackboneNorm::Frozen;
        }
        if let Some(backbone) = &self.backbone {
            model.backbone = backbone.clone();
        }
        if let Some(rate) = self.drop_path {
            model.drop_path = rate;
        }
        model.check()?;
        Ok(model)
    }

    /// The backbone's name, resolved.
    pub fn backbone(&self) -> &str {
        self.backbone.as_deref().unwrap_or_default()
    }
}

/// Gives the keys in `[model]` of `layer` the names they have now: files and checkpoints may have
/// former ones.
fn use_present_keys(layer: &mut Table) {
    let Some(Value::Table(model)) = layer.get_mut("model") else { return };
    for (part, former, present) in FORMER_KEYS {
        if let Some(Value::Table(table)) = model.get_mut(part)
            && let Some(value) = table.remove(former)
        {
            table.entry(present).or_insert(value);
        }
    }
    if let Some(Value::String(layout)) = model.remove("classes") {
        let (naming, background) = match layout.as_str() {
            "background-first" => ("torchvision", "first"),
            _ => ("detectron2", "last"),
        };
        for (key, value) in [("naming", naming), ("background", background), ("mask-paste", naming)]
        {
            model.entry(key).or_insert(value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modeling::config::BackgroundClass;

    fn resolved(text: &str) -> Result<DetectorSettings> {
        let table: Table = text.parse()?;
        let mut settings: DetectorSettings = engine::settings::from_layers([table])?;
        settings.resolve(Precision::Float32)?;
        Ok(settings)
    }

    #[test]
    fn former_keys_of_the_model_are_understood() {
        let former = "[model]\nclasses = \"background-first\"\n[model.roi]\nscore = 0.2\n\
                      detections = 7\n[model.rpn]\nbatch = 9";
        let present = "[model]\nnaming = \"torchvision\"\nbackground = \"first\"\n\
                       mask-paste = \"torchvision\"\n[model.roi]\nscore-thresh = 0.2\n\
                       detections-per-image = 7\n[model.rpn]\nbatch-size-per-image = 9";
        assert_eq!(resolved(former).unwrap(), resolved(present).unwrap());
    }

    #[test]
    fn former_keys_of_the_model_are_laid_over_present_ones() {
        let layer = |text: &str| text.parse::<Table>().unwrap();
        let mut settings: DetectorSettings = engine::settings::from_layers([
            layer("[model]\nbackground = \"first\"\n[model.roi]\nscore-thresh = 0.2"),
            layer("[model]\nclasses = \"background-last\"\n[model.roi]\nscore = 0.4"),
        ])
        .unwrap();
        settings.resolve(Precision::Float32).unwrap();
        let model = settings.model_config(2).unwrap();
        assert_eq!((model.roi.score_thresh, model.background), (0.4, BackgroundClass::Last));
    }

    /// What `[model]` says of the norms counts, not what the preset says.
    #[test]
    fn norms_learn_where_the_resolved_detector_says_so() {
        assert!(resolved("").unwrap().norms_learn().unwrap());
        assert!(resolved("norm-eval = true").unwrap().norms_learn().unwrap());
        let frozen = "[model]\nbackbone-norm = \"frozen\"";
        assert!(!resolved(frozen).unwrap().norms_learn().unwrap());
    }
}
