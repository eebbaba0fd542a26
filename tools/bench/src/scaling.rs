//! How the time of a SparK step grows: with the batch, the images' size, the
//! share that is masked, and the model.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use backbone::models::{self, Family};
use engine::picture::{Canvas, LineChart, png};
use engine::precision::Precision;
use serde::{Deserialize, Serialize};

use crate::duel::{Comparison, Observer, Outcome, Settings, three_digits};
use crate::duels;
use crate::inputs::SparkInputs;
use crate::machine::Machine;

/// A property that is varied, the others kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Its name on the command line and in file names.
    pub name: &'static str,
    title: &'static str,
    axis: &'static str,
    lines: Vec<Line>,
}

/// Steps that are joined in a picture.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// Which of several in a picture; empty for the only one.
    name: &'static str,
    steps: Vec<(f64, SparkInputs)>,
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepResult {
    /// What was varied.
    pub name: String,
    /// In the order of lines and values.
    pub points: Vec<Point>,
}

/// A step at one value of what is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The line it lies on.
    pub line: String,
    /// The value.
    pub x: f64,
    /// Model and images.
    pub inputs: SparkInputs,
    /// How both sides did.
    pub outcome: Outcome,
}

/// Everything that `bench scaling` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// What it was found on.
    pub machine: Machine,
    /// Threads of each side.
    pub threads: usize,
    /// Timed rounds of each step.
    pub rounds: usize,
    /// What was varied.
    pub sweeps: Vec<SweepResult>,
}

impl Point {
    /// As people are told.
    pub fn line(&self) -> String {
        let Outcome { name, unit, measured, error, .. } = &self.outcome;
        let model = &self.inputs.model;
        match measured {
            Some(measured) => format!(
                "{name:<22} {model:<15} ours {:<8} PyTorch {:<8} ({}) ratio {}",
                unit.tell(measured.ours.seconds.median),
                unit.tell(measured.theirs.seconds.median),
                measured.variant,
                three_digits(measured.ratio.median),
            ),
            None => format!("{name:<22} {model:<15} {}", error.as_deref().unwrap_or_default()),
        }
    }
}

/// All sweeps.
pub fn all() -> Vec<Sweep> {
    let inputs = |model: &str, batch, size, mask_ratio| SparkInputs {
        model: model.to_owned(),
        exported: None,
        batch,
        size,
        mask_ratio,
    };
    let alone = |steps| vec![Line { name: "", steps }];
    let batches = [1, 2, 4, 8, 16, 32, 64];
    let sizes = [96, 128, 160, 192, 224, 256, 320, 384];
    let ratios = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9];
    let models = |name, models: &[&str]| {
        let steps = models.iter().map(|model| {
            let inputs = inputs(model, 8, 96, 0.6);
            (encoder_parameters(model) / 1e6, inputs)
        });
        Line { name, steps: steps.collect() }
    };
    vec![
        Sweep {
            name: "batch",
            title: "ResNet-50, 96 px, 60 % masked",
            axis: "images of a step",
            lines: alone(
                batches.map(|batch| (batch as f64, inputs("resnet50", batch, 96, 0.6))).into(),
            ),
        },
        Sweep {
            name: "size",
            title: "ResNet-50, 4 images, 60 % masked",
            axis: "side of the images in pixels",
            lines: alone(sizes.map(|size| (size as f64, inputs("resnet50", 4, size, 0.6))).into()),
        },
        Sweep {
            name: "mask",
            title: "ResNet-50, 8 images, 160 px",
            axis: "share of patches masked",
            lines: alone(ratios.map(|ratio| (ratio, inputs("resnet50", 8, 160, ratio))).into()),
        },
        Sweep {
            name: "model",
            title: "8 images, 96 px, 60 % masked",
            axis: "millions of parameters of the encoder",
            lines: vec![
                models("ResNet", &["resnet18", "resnet34", "resnet50", "resnet101"]),
                models(
                    "ConvNeXt",
                    &[
                        "convnext_atto",
                        "convnext_nano",
                        "convnext_tiny",
                        "convnext_small",
                        "convnext_base",
                    ],
                ),
            ],
        },
    ]
}

/// Those whose name is one of `names`; all if there are none.
///
/// # Errors
/// A name that none has.
pub fn chosen(names: &[String]) -> Result<Vec<Sweep>> {
    let all = all();
    let known: Vec<&str> = all.iter().map(|sweep| sweep.name).collect();
    for name in names {
        ensure!(
            known.contains(&name.as_str()),
            "--only {name} fits nothing that is varied: there are {}",
            known.join(", ")
        );
    }
    let fits = |sweep: &Sweep| names.is_empty() || names.iter().any(|name| name == sweep.name);
    Ok(all.into_iter().filter(fits).collect())
}

impl Sweep {
    /// Line, value and comparison of every step.
    fn duels(&self) -> impl Iterator<Item = (&'static str, f64, SparkInputs, Comparison)> {
        self.lines.iter().flat_map(move |line| {
            line.steps.iter().map(|(x, inputs)| {
                let duel = duels::spark::step(inputs.clone(), Precision::Float32, 1);
                let name = format!("scaling-{}-{x}", self.name);
                let duel = Comparison { name, expected: expected(inputs), ..duel };
                (line.name, *x, inputs.clone(), duel)
            })
        })
    }

    /// About how long it takes, in the unit of [`Comparison::expected`].
    pub fn expected(&self) -> f64 {
        self.duels().map(|(.., duel)| duel.expected).sum()
    }

    /// Measures every step. Inputs are removed again: they are gigabytes.
    /// `begin` is told of each comparison before.
    ///
    /// # Errors
    /// Inputs cannot be removed. A step that cannot be measured is part of the
    /// result.
    pub fn run<W: Observer>(
        &self,
        settings: &Settings,
        watcher: &mut W,
        mut begin: impl FnMut(&mut W, &Comparison),
    ) -> Result<SweepResult> {
        let mut points = Vec::new();
        for (line, x, inputs, duel) in self.duels() {
            begin(watcher, &duel);
            let outcome = duel.run(settings, watcher);
            let path = inputs.path(&settings.folder);
            if path.exists() {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
            points.push(Point { line: line.to_owned(), x, inputs, outcome });
        }
        Ok(SweepResult { name: self.name.to_owned(), points })
    }

    /// Times on the left, ratios on the right; none if nothing was measured.
    ///
    /// # Errors
    /// The picture cannot be drawn.
    pub fn picture(&self, result: &SweepResult) -> Result<Option<Vec<u8>>> {
        const SIZE: (u32, u32) = (640, 440);
        let (mut measured, zero) = (false, [(0.0, 0.0)]);
        let mut times = LineChart::new(self.title, self.axis, "seconds of a step");
        let mut ratios = LineChart::new("PyTorch's time by ours", self.axis, "ratio");
        for line in &self.lines {
            let points = result.points.iter().filter(|point| point.line == line.name);
            let points: Vec<_> =
                points.filter_map(|p| Some((p.x, p.outcome.measured.as_ref()?))).collect();
            measured |= !points.is_empty();
            let name = |side: &str| format!("{side} {}", line.name).trim_end().to_owned();
            let of = |value: fn(&crate::duel::RoundResult) -> f64| {
                points.iter().map(|(x, measured)| (*x, value(measured))).collect::<Vec<_>>()
            };
            times = times
                .series(&name("ours"), &of(|measured| measured.ours.seconds.median))
                .series(&name("PyTorch"), &of(|measured| measured.theirs.seconds.median));
            ratios = ratios.series(line.name, &of(|measured| measured.ratio.median));
        }
        if !measured {
            return Ok(None);
        }
        // Both axes begin at nothing, so that lengths can be compared.
        let [times, ratios] = [times, ratios]
            .map(|chart| chart.line(&zero, engine::picture::canvas::INK, 1).render(SIZE.0, SIZE.1));
        let mut canvas = Canvas::new(2 * SIZE.0, SIZE.1);
        canvas.paste(&times?, (0, 0), 1);
        canvas.paste(&ratios?, (SIZE.0, 0), 1);
        Ok(Some(png(&canvas.into_image())?))
    }
}

impl Scaling {
    /// Writes scaling.json and scaling-NAME.png of what was found so far.
    ///
    /// # Errors
    /// The system does not let them be written.
    pub fn write(&self, sweeps: &[Sweep], folder: &Path) -> Result<()> {
        let write = |name: &str, bytes: Vec<u8>| {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        write("scaling.json", serde_json::to_vec_pretty(self)?)?;
        for result in &self.sweeps {
            let sweep = sweeps.iter().find(|sweep| sweep.name == result.name);
            let picture = sweep.map(|sweep| sweep.picture(result)).transpose()?.flatten();
            if let Some(picture) = picture {
                write(&format!("scaling-{}.png", result.name), picture)?;
            }
        }
        Ok(())
    }
}

/// Parameters of a registered model's encoder.
fn encoder_parameters(model: &str) -> f64 {
    models::find(model).map_or(0.0, |model| model.cost(3, 0, 224, 224).params as f64)
}

/// About the time of a round of both: a constant, and arithmetic at some
/// speed, which ConvNeXt's depthwise convolutions reach less of.
fn expected(inputs: &SparkInputs) -> f64 {
    let SparkInputs { model, batch, size, .. } = inputs;
    let of_model = models::find(model).map_or(0.0, |model| {
        let slow = if model.family() == Family::ConvNeXt { 2.0 } else { 1.0 };
        slow * model.cost(3, 0, *size, *size).flops as f64
    });
    1.0 + *batch as f64 * of_model / 5e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duel::Unit;
    use crate::report::tests::outcome;

    #[test]
    fn sweeps_are_found_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), 4);
        assert_eq!(chosen(&["mask".to_owned()]).unwrap()[0].name, "mask");
        let error = chosen(&["masks".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "--only masks fits nothing that is varied: there are batch, size, mask, model"
        );
    }

    #[test]
    fn every_model_of_a_sweep_is_registered() {
        for sweep in all() {
            for (_, _, inputs, _) in sweep.duels() {
                assert!(encoder_parameters(&inputs.model) > 1e6, "{}", inputs.model);
                assert_eq!(inputs.size % 32, 0);
            }
        }
    }

    #[test]
    fn what_was_measured_is_drawn() {
        let sweep = chosen(&["model".to_owned()]).unwrap().remove(0);
        let points = sweep.duels().map(|(line, x, inputs, duel)| {
            let outcome = outcome(&duel.name, Unit::Step, &[x], &[3.0 * x]);
            Point { line: line.to_owned(), x, inputs, outcome }
        });
        let mut result = SweepResult { name: "model".into(), points: points.collect() };
        let picture = sweep.picture(&result).unwrap().unwrap();
        assert_eq!(image::load_from_memory(&picture).unwrap().width(), 1280);
        result.points.clear();
        assert!(sweep.picture(&result).unwrap().is_none());
    }
}
