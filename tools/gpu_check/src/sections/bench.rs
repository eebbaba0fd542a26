//! SparK's steps on the device: ours against a masked-dense encoder in eager PyTorch.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use bench::inputs::SparkInputs;

use super::Setting;
use crate::cli::own_path;
use crate::facts::DeviceKind;
use crate::measured::Told;
use crate::outcome::Types;
use crate::recorder::{Finding, Recorder};
use crate::report::Tolerance;

/// The script of the other side.
const OPPONENT: &str = "opponent.py";
/// Learning rate and weight decay: an update that the second step's loss shows.
const UPDATE: [&str; 4] = ["--lr", "1e-3", "--weight-decay", "0.04"];

/// A row of the table.
struct Row {
    inputs: SparkInputs,
    types: Types,
    steps: &'static str,
    /// Up to which batch the largest that fits is looked for.
    largest: Option<&'static str>,
}

/// What is measured on a kind of device.
fn rows(kind: DeviceKind) -> Vec<Row> {
    let inputs = |model: &str, batch, size| SparkInputs {
        exported: None,
        model: model.to_owned(),
        batch,
        size,
        mask_ratio: 0.6,
    };
    let types = [(Types::Float32, false), (Types::Bfloat16, true)];
    match kind {
        DeviceKind::Cuda => ["resnet50", "convnext_small"]
            .into_iter()
            .flat_map(|model| types.map(|of| (model, of)))
            .map(|(model, (types, search))| Row {
                inputs: inputs(model, 64, 224),
                types,
                steps: "8",
                largest: search.then_some("4096"),
            })
            .collect(),
        // To see that the row can be measured at all.
        DeviceKind::Cpu => types
            .map(|(types, search)| Row {
                inputs: inputs("resnet18", 2, 96),
                types,
                steps: "1",
                largest: search.then_some("4"),
            })
            .into(),
    }
}

fn tolerance(types: Types) -> Tolerance {
    match types {
        Types::Float32 => Tolerance::new(
            1e-2,
            "both sides multiply float32 as libtorch does by default, on devices that have it with \
             TF32's 11 bits, but in other orders",
        ),
        _ => Tolerance::new(
            5e-2,
            "8-bit significands in every layer; autocast leaves other operators in float32 than we",
        ),
    }
}

/// The measurements.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    let opponent = opponent(setting);
    if let Err(why) = &opponent {
        recorder.skip("opponent", format!("{why:#}"));
    }
    for row in rows(setting.kind) {
        let SparkInputs { model, batch, size, .. } = &row.inputs;
        let name = format!("{model}, {batch} × {size} px, {}", row.types.name());
        let inputs = row.inputs.write(&setting.work);
        let side = |command: Result<Command>| -> Result<Told> {
            let inputs = inputs.as_ref().map_err(|error| anyhow!("{error:#}"))?;
            told_by(row.flags(command?, inputs, setting.kind))
        };
        let ours = side(ours());
        let theirs = opponent.as_ref().ok().map(|command| side(command()));
        told(recorder, &name, "ours", &ours);
        if let Some(theirs) = &theirs {
            told(recorder, &name, "theirs", theirs);
        }
        if let (Ok(ours), Some(Ok(theirs))) = (&ours, &theirs) {
            compare(recorder, &name, row.types, (ours, theirs));
        }
        // Weights and images of a row are hundreds of megabytes.
        let _ = inputs.map(std::fs::remove_file);
    }
    Ok(())
}

impl Row {
    fn flags(&self, mut command: Command, inputs: &Path, kind: DeviceKind) -> Command {
        command.arg("--inputs").arg(inputs).args(["--model", &self.inputs.model]);
        command.args(["--precision", self.types.name(), "--device", kind.name()]);
        command.args(["--steps", self.steps]).args(UPDATE);
        if let Some(most) = self.largest {
            command.args(["--largest", most]);
        }
        command
    }
}

fn ours() -> Result<Command> {
    let mut command = Command::new(own_path()?);
    command.arg("steps");
    Ok(command)
}

/// What starts the other side.
fn opponent(setting: &Setting) -> Result<impl Fn() -> Result<Command> + use<>> {
    let script = setting.places.scripts()?.join(OPPONENT);
    ensure!(script.is_file(), "there is no {}: name its folder with --scripts", script.display());
    let python = setting.places.python();
    let mut probe = Command::new(&python);
    let probed = probe.args(["-c", "import torch"]).stdin(Stdio::null()).output();
    let probed = probed.with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(
        probed.status.success(),
        "{} has no torch: name a Python that has one with --python",
        python.display()
    );
    Ok(move || {
        let mut command = Command::new(&python);
        command.arg(&script);
        Ok(command)
    })
}

/// Runs a side; what it tells in its last line.
fn told_by(mut command: Command) -> Result<Told> {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    ensure!(output.status.success(), "it ended ({}): {last}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("it told {last:?}"))
}

/// Records a side's figures.
fn told(recorder: &mut Recorder, row: &str, who: &str, told: &Result<Told>) {
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            let why = format!("{error:#}");
            return recorder.check(&format!("{row}: {who}"), || Err(anyhow!(why)));
        }
    };
    let mut measured = |what: &str, figure: Option<f64>, unit: &'static str, note: String| {
        if let Some(figure) = figure {
            let name = format!("{row}: {what}, {who}");
            recorder.check(&name, || Ok(Finding::Measured { figure, unit, note }));
        }
    };
    measured("step", Some(told.seconds * 1e3), "ms", told.how.clone());
    measured("memory", told.memory_mb, "MB", String::new());
    if let Some(largest) = &told.largest {
        let note = format!("at a batch of {}", largest.batch);
        measured("speed", Some(largest.images_per_second), "images/s", note.clone());
        measured("memory at the largest batch", largest.memory_mb, "MB", note);
    }
}

/// Records how the sides' losses agree and how their times compare.
fn compare(recorder: &mut Recorder, row: &str, types: Types, (ours, theirs): (&Told, &Told)) {
    recorder.check(&format!("{row}: losses"), || {
        let apart = ours.losses.iter().zip(&theirs.losses).map(|(a, b)| ((a - b) / b).abs());
        let figure = apart.fold(0.0, |most: f64, value| if value <= most { most } else { value });
        let note = format!("of two steps; ours {:.5}", ours.losses[1]);
        Ok(Finding::apart(figure, tolerance(types), note))
    });
    recorder.check(&format!("{row}: their time by ours"), || {
        let figure = theirs.seconds / ours.seconds;
        Ok(Finding::Measured { figure, unit: "×", note: theirs.how.clone() })
    });
    if let (Some(ours), Some(theirs)) = (&ours.largest, &theirs.largest) {
        recorder.check(&format!("{row}: our speed by theirs, each at its largest batch"), || {
            let figure = ours.images_per_second / theirs.images_per_second;
            Ok(Finding::Measured { figure, unit: "×", note: String::new() })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_tells_in_its_last_line() {
        let side = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            told_by(command)
        };
        let line = r#"{"losses":[1.0,0.9],"seconds":0.5,"memory_mb":null,"largest":null,"how":""}"#;
        assert_eq!(side(&format!("echo chatter; echo '{line}'")).unwrap().seconds, 0.5);
        let error = side("echo trouble >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("trouble"), "{error}");
        assert!(side("echo nothing").unwrap_err().to_string().contains("\"nothing\""));
    }
}
