//! How long a run is.

use words::counted;

use super::{Choices, Machine};
use crate::Result;
use crate::settings::Settings;
use crate::training::trial::StepCost;

/// The longest that a processor is let compute by itself: a night.
pub const PROCESSOR_HOURS: f64 = 12.0;
/// Time between two checkpoints that is aimed at, and checkpoints of a run at least.
const CHECKPOINT_SECONDS: f64 = 600.0;
const CHECKPOINTS: u64 = 20;

/// Epochs by rule, within bounds.
#[derive(Debug, Clone)]
pub struct LengthRule {
    /// Passes over so many images.
    pub epochs: u64,
    /// Why so many.
    pub why: String,
    /// Images of an epoch.
    pub images: usize,
    /// Images of a step.
    pub batch: usize,
    /// Fewest steps that learn anything.
    pub least_steps: u64,
    /// Most steps.
    pub most_steps: u64,
}

impl LengthRule {
    /// Steps of an epoch.
    pub fn steps(&self) -> u64 {
        (self.images as u64).div_ceil(self.batch.max(1) as u64).max(1)
    }

    /// Seconds of an epoch, at what an image takes.
    pub fn epoch_seconds(&self, cost: &StepCost, machine: &Machine) -> f64 {
        (self.steps() * self.batch as u64) as f64 * cost.seconds / machine.processes as f64
    }

    /// Chooses `epochs`.
    ///
    /// # Errors
    /// Those of [`Choices::choose`].
    pub fn choose<C: Settings>(
        &self,
        choices: &mut Choices<C>,
        machine: &Machine,
        cost: Option<&StepCost>,
    ) -> Result<bool> {
        let (epochs, why) = self.bounded(machine, cost);
        choices.choose("epochs", epochs, why)
    }

    /// Epochs, and why so many.
    fn bounded(&self, machine: &Machine, cost: Option<&StepCost>) -> (u64, String) {
        let steps = self.steps();
        let least = self.least_steps.div_ceil(steps);
        let most = (self.most_steps / steps).max(1);
        let (mut epochs, mut why) = (self.epochs, self.why.clone());
        if epochs < least {
            (epochs, why) = (least, format!("at least {}", counted(self.least_steps, "step")));
        }
        if epochs > most {
            (epochs, why) = (most, format!("at most {}", counted(self.most_steps, "step")));
        }
        let of_epoch = cost.map(|cost| self.epoch_seconds(cost, machine));
        let Some(of_epoch) = of_epoch.filter(|_| !machine.has_gpu()) else { return (epochs, why) };
        let in_time = ((PROCESSOR_HOURS * 3600.0 / of_epoch) as u64).max(1);
        if epochs > in_time {
            why = format!(
                "{PROCESSOR_HOURS} hours on this processor; {epochs} take {} times that",
                (epochs as f64 / in_time as f64).ceil()
            );
            epochs = in_time;
        }
        (epochs, why)
    }
}

/// Epochs between checkpoints of a run of `epochs` that take `seconds` each.
pub fn checkpoint_epochs(epochs: u64, seconds: f64) -> u64 {
    let in_time = (CHECKPOINT_SECONDS / seconds.max(1e-9)) as u64;
    in_time.clamp(1, (epochs / CHECKPOINTS).max(1))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn rule(images: usize, batch: usize) -> LengthRule {
        LengthRule {
            epochs: 800,
            why: "the rule".into(),
            images,
            batch,
            least_steps: 1000,
            most_steps: 500_000,
        }
    }

    fn machine(device: Device) -> Machine {
        Machine { device, cores: 2, processes: 1, memory: None, bfloat16: false }
    }

    fn cost(seconds: f64) -> StepCost {
        StepCost { seconds, bytes: None, fixed: 0 }
    }

    #[test]
    fn epochs_are_held_between_steps_and_to_a_night() {
        let cpu = machine(Device::Cpu);
        let quick = Some(cost(1e-6));
        let of = |images| rule(images, 16).bounded(&cpu, quick.as_ref());
        assert_eq!(of(160), (800, "the rule".into()));
        assert_eq!(of(15), (1000, "at least 1,000 steps".into()));
        assert_eq!(of(1_600_000), (5, "at most 500,000 steps".into()));
        // An epoch of 160 images takes 160 seconds: 270 of them are a night.
        let slow = rule(160, 16).bounded(&cpu, Some(&cost(1.0)));
        assert_eq!(slow.0, 270);
        assert!(slow.1.starts_with("12 hours on this processor; 800 take 3 times"), "{}", slow.1);
        // Nor is one cut that takes longer than that.
        assert_eq!(rule(160, 16).bounded(&cpu, Some(&cost(1e4))).0, 1);
        assert_eq!(rule(160, 16).bounded(&machine(Device::Cuda(0)), Some(&cost(1.0))).0, 800);
    }

    #[test]
    fn checkpoints_come_every_ten_minutes_and_twenty_times() {
        assert_eq!(checkpoint_epochs(1000, 0.5), 50);
        assert_eq!(checkpoint_epochs(1000, 60.0), 10);
        assert_eq!(checkpoint_epochs(1000, 7200.0), 1);
        assert_eq!(checkpoint_epochs(3, 0.5), 1);
    }
}
