//! The runs of a comparison: what each is called, and its flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Table;

use super::labelled::{Labelled, Part, share_name};
use super::plan::Plan;
use super::settings::CompareSettings;

/// The folder of the pretraining, and its name among the runs.
pub const PRETRAINING: &str = "pretraining";
/// Pictures and files that nobody looks at are left out; layers learn alike, since decay by depth
/// suits weights that have learned something. Flags of one's own override these.
const OF_PRETRAINING: [&str; 2] = ["--picture-epochs", "0"];
const OF_CLASSIFIER: [&str; 2] = ["--layer-decay", "1"];
const OF_DETECTOR: [&str; 4] = ["--layer-decay", "1", "--pictures", "0"];

/// Part of a run in which the learning rate rises.
const WARM_UP: u64 = 10;
/// Checkpoints of pretraining, for when it is killed.
const CHECKPOINTS: u64 = 20;
/// Records of a run at least, by which its progress is seen, and steps between them at most.
const RECORDS: u64 = 100;
const RECORD_STEPS: u64 = 10;

/// The weights that a fine-tuning begins with, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// Random ones.
    Random,
    /// Pretrained ones, as many steps.
    Pretrained,
    /// Random ones, as much time as pretraining and fine-tuning together.
    Longer,
}

impl Arm {
    /// As a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random weights",
            Self::Pretrained => "pretrained",
            Self::Longer => "random, as much time",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Pretrained => "pretrained",
            Self::Longer => "longer",
        }
    }
}

/// A fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Its weights.
    pub arm: Arm,
    /// Of the labels.
    pub share: f64,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Steps of the optimizer.
    pub steps: u64,
}

impl Tuning {
    /// The name of its folder.
    pub fn name(&self) -> String {
        let Self { arm, share, seed, .. } = self;
        format!("{}-percent-seed{seed}-{}", share_name(*share), arm.key())
    }

    /// As a person reads it.
    pub fn title(&self) -> String {
        let share = super::words::percent(self.share);
        format!("{}, {share} of the labels, seed {}", self.arm.name(), self.seed)
    }
}

/// All of a plan, pairs first, so that what is done early can be compared.
pub fn tunings(plan: &Plan, shares: &[f64]) -> Vec<Tuning> {
    let chosen: Vec<f64> = plan.shares.iter().map(|&at| shares[at]).collect();
    let mut tunings = Vec::new();
    for seed in 0..plan.seeds {
        for &share in chosen.iter().rev() {
            for arm in [Arm::Random, Arm::Pretrained] {
                tunings.push(Tuning { arm, share, seed, steps: plan.steps });
            }
        }
    }
    let largest = chosen.last().copied().unwrap_or(1.0);
    let longer = |seed| Tuning { arm: Arm::Longer, share: largest, seed, steps: plan.longer_steps };
    tunings.extend((0..plan.longer_seeds).map(longer));
    tunings
}

/// Makes the flags of the programs.
pub struct Flags<'a> {
    /// The comparison's settings.
    pub settings: &'a CompareSettings,
    /// What is learned.
    pub labelled: &'a Labelled,
    /// The preset of all programs.
    pub preset: String,
    /// The flags given for pretraining and for fine-tuning.
    pub own: [Vec<String>; 2],
}

fn words<const N: usize>(words: [&str; N]) -> impl Iterator<Item = OsString> {
    words.map(OsString::from).into_iter()
}

impl Flags<'_> {
    fn detects(&self) -> bool {
        matches!(self.labelled, Labelled::Coco { .. })
    }

    /// Of all programs; `model` is what the program calls it.
    fn common(&self, model: &str) -> Vec<OsString> {
        let CompareSettings { device, threads, workers, model: given, .. } = self.settings;
        let (threads, workers) = (threads.to_string(), workers.to_string());
        let mut flags: Vec<OsString> = words(["--preset", &self.preset]).collect();
        flags.extend(words(["--device", device, "--threads", &threads, "--workers", &workers]));
        flags.extend(given.iter().flat_map(|given| words([model, given])));
        flags
    }

    /// Of pretraining of so many epochs.
    pub fn pretraining(&self, epochs: u64, steps: u64) -> Vec<OsString> {
        let (warm_up, every) = (epochs / WARM_UP, steps.div_ceil(CHECKPOINTS));
        let mut flags = self.common("--model");
        flags.extend(words(OF_PRETRAINING));
        flags.extend(words(["--log-steps", &record_steps(steps)]));
        flags.extend(self.own[0].iter().map(OsString::from));
        flags.extend(["--data".into(), self.settings.data.clone().into()]);
        flags.extend(words(["--epochs", &epochs.to_string()]));
        flags.extend(words(["--warmup-epochs", &warm_up.to_string(), "--seed", "0"]));
        flags.extend(words(["--checkpoint-epochs", "0"]));
        flags.extend(words(["--checkpoint-steps", &every.to_string()]));
        flags
    }

    /// Of fine-tuning, but for its data, seed, length and weights.
    fn tuning(&self, steps: u64) -> Vec<OsString> {
        let mut flags = self.common(if self.detects() { "--backbone" } else { "--model" });
        match self.detects() {
            true => flags.extend(words(OF_DETECTOR)),
            false => flags.extend(words(OF_CLASSIFIER)),
        }
        flags.extend(words(["--log-steps", &record_steps(steps)]));
        flags.extend(self.own[1].iter().map(OsString::from));
        flags
    }

    /// Of fine-tuning with the labels `part`, of which an epoch has so many steps.
    pub fn tune(
        &self,
        part: &Part,
        epoch: u64,
        steps: u64,
        evaluations: u64,
        seed: u64,
    ) -> Vec<OsString> {
        let mut flags = self.tuning(steps);
        flags.extend(self.labelled.flags(part));
        flags.extend(words(["--seed", &seed.to_string(), "--checkpoint-epochs", "0"]));
        if self.detects() {
            let every = steps.div_ceil(evaluations).max(1);
            flags.extend(words(["--iterations", &steps.to_string(), "--eval-epochs", "0"]));
            flags.extend(words(["--eval-steps", &every.to_string(), "--checkpoint-steps", "0"]));
            flags.extend(words(["--warmup-iterations", &(steps / WARM_UP).to_string()]));
        } else {
            let epochs = epochs_of(steps, epoch);
            let every = epochs.div_ceil(evaluations).max(1);
            flags.extend(words([
                "--epochs",
                &epochs.to_string(),
                "--eval-epochs",
                &every.to_string(),
            ]));
            flags.extend(words(["--warmup-epochs", &(epochs / WARM_UP).to_string()]));
        }
        flags
    }

    /// The weights of the pretraining in the folder `run`.
    pub fn weights(run: &Path) -> [OsString; 2] {
        ["--backbone-weights".into(), PathBuf::from(run).into()]
    }
}

fn record_steps(steps: u64) -> String {
    (steps / RECORDS).clamp(1, RECORD_STEPS).to_string()
}

/// Whole epochs of about so many steps.
pub fn epochs_of(steps: u64, epoch: u64) -> u64 {
    ((steps as f64 / epoch as f64).round() as u64).max(1)
}

/// The network that a program's resolved settings name.
pub fn model_of(settings: &Table) -> Option<&str> {
    // A detector's `model` is the table of its parts.
    ["model", "backbone"].into_iter().find_map(|key| settings.get(key)?.as_str())
}

/// A figure of evaluations.
pub struct Figure {
    /// As a person reads it.
    pub name: &'static str,
    /// Its names in `metrics.jsonl`, the preferred first.
    pub keys: &'static [&'static str],
}

/// Those of a classifier: of averaged weights, where there are any.
pub const OF_CLASSES: [Figure; 1] = [Figure { name: "top-1", keys: &["ema_top1", "top1"] }];
/// Those of a detector.
pub const OF_OBJECTS: [Figure; 2] =
    [Figure { name: "box AP", keys: &["bbox/AP"] }, Figure { name: "mask AP", keys: &["segm/AP"] }];

impl Figure {
    /// Steps and the figure in points, of all evaluations among these records.
    pub fn curve(&self, records: &[Value]) -> Vec<(f64, f64)> {
        let curve = |key: &&str| -> Vec<(f64, f64)> {
            let point =
                |record: &Value| Some((record["step"].as_f64()?, 100.0 * record[*key].as_f64()?));
            records.iter().filter_map(point).collect()
        };
        self.keys.iter().map(curve).find(|curve| !curve.is_empty()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_first_and_names_are_their_own() {
        let plan = crate::compare::plan::Plan {
            shares: vec![0, 2],
            seeds: 2,
            longer_seeds: 1,
            pretraining_epochs: 1,
            pretraining_steps: 1,
            steps: 10,
            longer_steps: 20,
            evaluations: 2,
            seconds: crate::compare::plan::Seconds {
                pretraining: 1.0,
                finetuning: 1.0,
                longer: 2.0,
                all: 9.0,
            },
            cut: vec![],
        };
        let tunings = tunings(&plan, &[0.1, 0.3, 1.0]);
        let names: Vec<String> = tunings.iter().map(Tuning::name).collect();
        assert_eq!(names.len(), 9);
        assert_eq!(
            names[..3],
            ["100-percent-seed0-random", "100-percent-seed0-pretrained", "10-percent-seed0-random"]
        );
        assert_eq!(names[8], "100-percent-seed0-longer");
        assert_eq!(tunings[8].steps, 20);
    }

    #[test]
    fn figures_are_those_of_averaged_weights() {
        let records = [
            serde_json::json!({"step": 5, "top1": 0.2, "ema_top1": 0.25}),
            serde_json::json!({"step": 6, "loss": 0.2}),
        ];
        assert_eq!(OF_CLASSES[0].curve(&records), [(5.0, 25.0)]);
        let plain = [serde_json::json!({"step": 5, "top1": 0.5})];
        assert_eq!(OF_CLASSES[0].curve(&plain), [(5.0, 50.0)]);
        assert!(OF_OBJECTS[1].curve(&plain).is_empty());
        assert_eq!([epochs_of(10, 4), epochs_of(1, 9), epochs_of(8, 4)], [3, 1, 2]);
    }
}
