//! What a comparison knows so far, in its folder; and what that says in the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use data::write_file;
use engine::run_dir::display_path;
use serde::{Deserialize, Serialize};
use words::counted;

use super::picture::{Curve, Panel};
use super::plan::{Cost, Epochs, Plan};
use super::report::{Report, Row};
use super::runs::{Arm, Figure, Tuning, tunings};
use super::words::{clock, percent};

/// The file, in the folder of the comparison.
const FILE: &str = "compare.json";

/// Whether `folder` holds a comparison that came to no plan, as after a budget that was too small:
/// nothing is lost with it.
pub fn is_unplanned(folder: &Path) -> bool {
    let settings = folder.join(engine::run_dir::CONFIG_FILE);
    let settings = engine::settings::read_table(&settings).unwrap_or_default();
    settings.contains_key("labelled") && !folder.join(FILE).exists()
}

/// A comparison as far as it has come.
#[derive(Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What pretraining and fine-tuning cost here.
    pub costs: [Cost; 2],
    /// Steps of an epoch.
    pub epochs: Epochs,
    /// What is to be done.
    pub plan: Plan,
    /// Seconds that runs took so far, finished or not.
    pub seconds: BTreeMap<String, f64>,
    /// Runs that are finished.
    pub finished: BTreeMap<String, Outcome>,
}

/// What a run has left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Images that it learned from.
    pub images: usize,
    /// Curves over steps, in points, by the figures' names.
    pub curves: BTreeMap<String, Curve>,
}

impl Progress {
    /// That of the comparison in `folder`, if it has come so far as to have a plan.
    ///
    /// # Errors
    /// A damaged file.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", display_path(&path)))?;
        serde_json::from_str(&text).map(Some).with_context(|| {
            format!(
                "{} is damaged: --overwrite in place of --resume begins anew, another --output \
                 leaves it as it is",
                display_path(&path)
            )
        })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        Ok(write_file(&folder.join(FILE), &serde_json::to_vec_pretty(self)?)?)
    }

    /// The plan, as a person is told, for a budget in seconds.
    pub fn describe(&self, asked: &[f64], budget: f64) -> String {
        let Self { costs: [pretraining, tuning], plan, .. } = self;
        let row = |runs: u64, what: &str, length: String, seconds: f64| {
            format!("  {runs:>3} × {what:<22} {length:<28} {} each\n", clock(seconds))
        };
        let steps = |steps: u64| counted(steps, "step");
        let epochs = counted(plan.pretraining_epochs, "epoch");
        let length = format!("{epochs}, {}", steps(plan.pretraining_steps));
        let mut text = format!(
            "measured: a step of pretraining {:.3} s, of fine-tuning {:.3} s, an evaluation {:.1} s\n\
             plan: {} of {}\n",
            pretraining.step,
            tuning.step,
            tuning.end,
            clock(plan.seconds.all),
            clock(budget)
        );
        text += &row(1, "pretraining", length, plan.seconds.pretraining);
        for arm in [Arm::Random, Arm::Pretrained] {
            text += &row(plan.runs() / 2, arm.name(), steps(plan.steps), plan.seconds.finetuning);
        }
        if plan.longer_seeds > 0 {
            let length = steps(plan.longer_steps);
            text += &row(plan.longer_seeds, Arm::Longer.name(), length, plan.seconds.longer);
        }
        let shares: Vec<String> = self.shares(asked).into_iter().map(percent).collect();
        text += &format!(
            "  with {} of the labels, {}\n",
            shares.join(", "),
            counted(plan.seeds, "seed")
        );
        if !plan.cut.is_empty() {
            text +=
                &format!("cut to fit: {}; a larger --minutes keeps them\n", plan.cut.join("; "));
        }
        text
    }

    /// Seconds that all runs took.
    pub fn all_seconds(&self) -> f64 {
        self.seconds.values().sum()
    }

    fn curves(&self, shares: &[f64], figure: &Figure, arm: Arm, share: f64) -> Vec<&Curve> {
        tunings(&self.plan, shares)
            .iter()
            .filter(|tuning| tuning.arm == arm && tuning.share == share)
            .filter_map(|tuning| self.finished.get(&tuning.name())?.curves.get(figure.name))
            .filter(|curve| !curve.is_empty())
            .collect()
    }

    fn images(&self, share: f64) -> usize {
        let name = Tuning { arm: Arm::Random, share, seed: 0, steps: 0 }.name();
        self.finished.get(&name).map_or(0, |outcome| outcome.images)
    }

    /// The shares that are compared, of all that were asked for.
    fn shares(&self, asked: &[f64]) -> Vec<f64> {
        self.plan.shares.iter().map(|&at| asked[at]).collect()
    }

    /// What the finished runs say of a figure; none if it was not taken.
    pub fn report(
        &self,
        asked: &[f64],
        figure: &Figure,
        images_of_validation: usize,
    ) -> Option<Report> {
        let last = |arm: Arm, share: f64| -> Vec<f64> {
            let curves = self.curves(asked, figure, arm, share);
            curves.iter().filter_map(|curve| Some(curve.last()?.1)).collect()
        };
        let row = |random: Arm, share: f64| {
            let [random, pretrained] = [last(random, share), last(Arm::Pretrained, share)];
            let both = !random.is_empty() && !pretrained.is_empty();
            both.then(|| Row::new(share, self.images(share), &random, &pretrained))
        };
        let shares = self.shares(asked);
        let rows: Vec<Row> = shares.iter().filter_map(|&share| row(Arm::Random, share)).collect();
        let longer = shares.last().and_then(|&share| row(Arm::Longer, share));
        (!rows.is_empty()).then(|| Report {
            metric: figure.name.into(),
            counts_images: figure.name == super::runs::OF_CLASSES[0].name,
            images_of_validation,
            epochs_of_pretraining: self.plan.pretraining_epochs,
            rows,
            longer,
        })
    }

    /// The curves of a figure: for each share over steps, and all labels over time.
    pub fn panels(&self, asked: &[f64], figure: &Figure) -> Vec<Panel> {
        let own = |arm: Arm, share: f64| -> Vec<Curve> {
            self.curves(asked, figure, arm, share).into_iter().cloned().collect()
        };
        let y = || format!("{} in %", figure.name);
        let shares = self.shares(asked);
        let mut panels: Vec<Panel> = shares
            .iter()
            .map(|&share| Panel {
                title: format!(
                    "{} of the labels, {}",
                    percent(share),
                    counted(self.images(share), "image")
                ),
                x: "step of fine-tuning",
                y: y(),
                lines: [Arm::Random, Arm::Pretrained]
                    .map(|arm| (arm.name(), own(arm, share)))
                    .into(),
            })
            .collect();
        let Some(&share) = shares.last().filter(|_| self.plan.longer_seeds > 0) else {
            return panels;
        };
        let plan = &self.plan;
        let minutes = |curves: Vec<Curve>, before: f64, seconds: f64, steps: u64| -> Vec<Curve> {
            let point = |(step, value): (f64, f64)| {
                ((before + seconds * step / steps as f64) / 60.0, value)
            };
            curves.into_iter().map(|curve| curve.into_iter().map(point).collect()).collect()
        };
        let seconds = &plan.seconds;
        let longer = minutes(own(Arm::Longer, share), 0.0, seconds.longer, plan.longer_steps);
        let pretrained = minutes(
            own(Arm::Pretrained, share),
            seconds.pretraining,
            seconds.finetuning,
            plan.steps,
        );
        panels.push(Panel {
            title: format!("As much time, {} of the labels", percent(share)),
            x: "minutes, pretraining included",
            y: y(),
            lines: vec![(Arm::Longer.name(), longer), (Arm::Pretrained.name(), pretrained)],
        });
        panels
    }
}
