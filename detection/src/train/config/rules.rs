//! What settings are held to.

use anyhow::{Result, bail, ensure};
use engine::precision::Precision;
use engine::settings::{at_least, divides, not_negative, within};

use super::{Schedule, TrainConfig};

impl TrainConfig {
    /// Refuses what cannot be run.
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            !self.data.as_os_str().is_empty() || self.train_annotations.is_some(),
            "no data: name a folder with --data, or a file with --train-annotations"
        );
        ensure!(!self.output.as_os_str().is_empty(), "no run folder: name one with --output");
        at_least("batch-size", self.batch_size, 1)?;
        at_least("accum-steps", self.accum_steps, 1)?;
        at_least("epochs", self.epochs, 1)?;
        at_least("log-steps", self.log_steps, 1)?;
        divides("accum-steps", self.accum_steps, "batch-size", self.batch_size)?;
        ensure!(
            self.milestones.is_sorted(),
            "milestones is {:?}, but they must ascend",
            self.milestones
        );
        let (unit, length) = match self.iterations {
            0 => ("epochs", self.epochs),
            iterations => ("iterations", iterations),
        };
        let late = self.milestones.iter().find(|at| **at >= length);
        if let (Schedule::Step, Some(late)) = (self.schedule, late) {
            bail!("milestones has {late}, but the run has {length} {unit}");
        }
        for (name, value) in [
            ("warmup-factor", self.warmup_factor),
            ("max-corrupt", self.max_corrupt),
            ("layer-decay", self.layer_decay),
            ("gamma", self.gamma),
        ] {
            within(name, value, (0.0..=1.0).contains(&value), "[0, 1]")?;
        }
        for (name, value) in [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("ema", self.ema),
            ("drop-path", self.drop_path.unwrap_or(0.0)),
        ] {
            within(name, value, (0.0..1.0).contains(&value), "[0, 1)")?;
        }
        for (name, value) in [
            ("base-lr", self.base_lr),
            ("weight-decay", self.weight_decay),
            ("clip-grad", self.clip_grad),
        ] {
            not_negative(name, value)?;
        }
        at_least("eval-short-side", self.eval_short_side, 32)?;
        at_least("eval-max-side", self.eval_max_side, self.eval_short_side)?;
        self.model(1)?;
        if self.backbone_plugin.is_none() {
            backbone::models::find(self.backbone())?;
        } else {
            ensure!(
                self.precision == Precision::Float32,
                "precision is {:?}, but a plugin computes in its parameters' float32",
                self.precision
            );
            ensure!(
                self.drop_path.unwrap_or(0.0) == 0.0 && !self.norm_eval,
                "drop-path is {} and norm-eval {}, but a plugin has its own: create it with them, as \
                 in --backbone '{{\"model\": \"resnet50\", \"drop_path_rate\": 0.1, \"norm_eval\": true}}'",
                self.drop_path.unwrap_or(0.0),
                self.norm_eval
            );
        }
        ensure!(
            self.weights.is_none() || self.backbone_weights.is_none(),
            "weights and backbone-weights are both given, but a detector has its own backbone"
        );
        Ok(())
    }
}
