//! What the processor reaches at most, and how much of it both sides of a duel do.

use anyhow::{Context, Result, ensure};
use engine::precision::Precision;
use serde::{Deserialize, Serialize};

use crate::duel::{Settings, three_digits};

/// Seconds for each kind and size of product.
const SECONDS: f64 = 1.0;

/// The most operations a second, by the type of the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Of single precision.
    pub float32: Reached,
    /// Of bfloat16, whose sums may be float32.
    pub bfloat16: Reached,
}

/// A peak, and what reached it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Operations a second.
    pub speed: f64,
    /// Which product.
    pub by: String,
}

impl Peak {
    /// Of as many threads as each side of a duel has.
    ///
    /// # Errors
    /// The script that measures it fails.
    pub fn measure(settings: &Settings) -> Result<Self> {
        Self::measure_for(SECONDS, settings)
    }

    fn measure_for(seconds: f64, settings: &Settings) -> Result<Self> {
        let threads = settings.threads.to_string();
        let mut script = settings.script("peak.py");
        script.args([&threads, &seconds.to_string()]).env("OMP_NUM_THREADS", &threads);
        let output = script.output().context("cannot start peak.py")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the processor's peak cannot be measured: {error}");
        serde_json::from_slice(&output.stdout).context("reading what peak.py said")
    }

    /// Operations a second of work that may be done in `precision`. What may be bfloat16 may be
    /// float32 too, which is faster where the processor has no instructions for bfloat16.
    pub fn speed(&self, precision: Precision) -> f64 {
        match precision {
            Precision::Bfloat16 => self.bfloat16.speed.max(self.float32.speed),
            _ => self.float32.speed,
        }
    }

    /// In a line.
    pub fn tell(&self) -> String {
        let giga = |reached: &Reached| three_digits(reached.speed / 1e9);
        format!("{} GFLOP/s in float32, {} in bfloat16", giga(&self.float32), giga(&self.bfloat16))
    }
}

/// What a duel's work takes at least, and how near to it both sides are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Products and sums of a unit of work.
    pub operations: f64,
    /// The time that they take at the processor's peak.
    pub seconds: f64,
    /// The share of the peak that we reach.
    pub ours: f64,
    /// The share that the other side reaches.
    pub theirs: f64,
}

impl Roofline {
    /// Of so many operations at a peak of `speed` a second, which took both sides so many seconds.
    pub fn new(operations: f64, speed: f64, ours: f64, theirs: f64) -> Self {
        let seconds = operations / speed;
        Self { operations, seconds, ours: seconds / ours, theirs: seconds / theirs }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use backbone::models;

    use super::*;

    fn reached(speed: f64) -> Reached {
        Reached { speed, by: String::new() }
    }

    #[test]
    fn shares_are_of_the_faster_precision_that_the_work_allows() {
        let peak = Peak { float32: reached(4e11), bfloat16: reached(8e11) };
        assert_eq!(peak.tell(), "400 GFLOP/s in float32, 800 in bfloat16");
        let roofline = Roofline::new(8e11, peak.speed(Precision::Bfloat16), 2.0, 4.0);
        let expected = Roofline { operations: 8e11, seconds: 1.0, ours: 0.5, theirs: 0.25 };
        assert_eq!(roofline, expected);
        assert_eq!(peak.speed(Precision::Float32), 4e11);
        let emulated = Peak { bfloat16: reached(1e10), ..peak };
        assert_eq!(emulated.speed(Precision::Bfloat16), 4e11);
    }

    #[test]
    fn the_peak_is_measured() {
        let settings = Settings {
            threads: 1,
            rounds: 1,
            folder: "/nowhere".into(),
            python: spark_tests::python(),
            program: "/nowhere".into(),
            peak: None,
        };
        // Each product once after it warmed up.
        let peak = Peak::measure_for(0.0, &settings).unwrap();
        for Reached { speed, by } in [&peak.float32, &peak.bfloat16] {
            assert!((1e8..1e15).contains(speed), "{peak:?}");
            assert!(by.contains('×'), "{peak:?}");
        }
    }

    /// Operations of a timm model on an image, forward alone and with the gradients.
    const COUNT: &str = "
import sys, timm, torch
sys.path.insert(0, sys.argv[1])
from operations import count
with torch.device('meta'):
    model, image = timm.create_model(sys.argv[2]), torch.empty(1, 3, 224, 224)
print(count(lambda: model(image)), count(lambda: model(image).sum().backward()))";

    #[test]
    fn as_many_operations_are_counted_as_layers_have() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
        // The products of the first convolution: nobody wants its input's gradient. The second
        // model has convolutions of many groups.
        let stems =
            [("resnet50", 64 * 3 * 49 * 112 * 112), ("convnext_tiny", 96 * 3 * 16 * 56 * 56)];
        for (model, stem) in stems {
            let python = Command::new(spark_tests::python())
                .args(["-c", COUNT, folder, model])
                .output()
                .unwrap();
            assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
            let forward = 2 * models::find(model).unwrap().cost(3, 1000, 224, 224).flops;
            let expected = format!("{forward} {}", 3 * forward - 2 * stem);
            assert_eq!(String::from_utf8_lossy(&python.stdout).trim(), expected, "{model}");
            if model == "resnet50" {
                assert!((8.1e9..8.3e9).contains(&(forward as f64)), "{forward}");
            }
        }
    }
}
