//! What settings are held to together.

use anyhow::{Result, bail, ensure};

use super::{Schedule, TrainConfig};

impl TrainConfig {
    /// Refuses what cannot be run.
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            !self.data.as_os_str().is_empty() || self.train_annotations.is_some(),
            "no data: name a folder with --data, or a file with --train-annotations"
        );
        self.run.check()?;
        self.optim.check()?;
        ensure!(
            self.milestones.is_sorted(),
            "milestones is {:?}, but they must ascend",
            self.milestones
        );
        let (unit, length) = match self.iterations {
            0 => ("epochs", self.optim.epochs),
            iterations => ("iterations", iterations),
        };
        let late = self.milestones.iter().find(|at| **at >= length);
        if let (Schedule::Step, Some(late)) = (self.schedule, late) {
            bail!("milestones has {late}, but the run has {length} {unit}");
        }
        ensure!(
            self.weights.is_none() || self.backbone_weights.is_none(),
            "weights and backbone-weights are both given, but a detector has its own backbone"
        );
        Ok(())
    }
}
