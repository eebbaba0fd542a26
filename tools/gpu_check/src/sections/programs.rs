//! Three training steps of each program on the device against the processor's.
//!
//! Weights are drawn where they lie, so both go on from one checkpoint, which the processor has
//! left after a first step.

use std::thread;

use anyhow::{Result, bail, ensure};
use tch::Device;

use super::{NEEDS_CUDA, Setting};
use crate::outcome::Types;
use crate::programs::{Point, Program, Workplace};
use crate::recorder::{Finding, Recorder, said};
use crate::report::Tolerance;

/// Steps that are compared.
const STEPS: usize = 3;

/// What losses and, in float64, gradient norms may be apart.
fn tolerance(program: Program, types: Types) -> Tolerance {
    match (types, program) {
        (Types::Float64, _) => Tolerance::new(
            1e-6,
            "float64 sums in another order, 1e-15, which three updates magnify; the processor's \
             runs on several processes stay within as much",
        ),
        (_, Program::Detect) => Tolerance::new(
            0.3,
            "a rounded score can bring in another proposal of the few that a step learns from, and \
             its losses are means over those",
        ),
        (Types::Float32, _) => Tolerance::new(
            2e-2,
            "cuDNN rounds factors of float32 products to TF32's 11 bits, 0.05 %, in each of some \
             twenty layers and three updates",
        ),
        (Types::Bfloat16, _) => Tolerance::new(
            0.1,
            "8-bit significands, 0.4 % a value, in each of some twenty layers and three updates",
        ),
        (Types::Float16, _) => Tolerance::new(
            5e-2,
            "11-bit significands, 0.05 % a value, as TF32; what follows a step left out for \
             overflow is not compared",
        ),
    }
}

/// The checks.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    let work = Workplace::new(setting)?;
    for program in Program::ALL {
        let name = program.name();
        if let Some(why) = work.lacks(program) {
            recorder.skip(name, why);
            continue;
        }
        if let Err(problem) = work.prepare(program) {
            recorder.check(name, || Err(problem));
            continue;
        }
        let mut starts = None;
        for types in Types::ALL {
            let name = format!("{name}, {}", types.name());
            if types == Types::Float16 && setting.device == Device::Cpu {
                recorder.skip(&name, NEEDS_CUDA);
                continue;
            }
            recorder.check(&name, || {
                let [exact, plain] = starts.get_or_insert_with(|| Start::both(&work, program));
                let start = if types == Types::Float64 { exact } else { plain };
                let start = start.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                let output = format!("{}-{}", program.name(), types.name());
                start.go_on(&work, &output, setting.kind.name(), types)?;
                let (figure, note) = apart(&work.curve(&output)?, &start.curve, types)?;
                Ok(Finding::apart(figure, tolerance(program, types), note))
            });
        }
    }
    Ok(())
}

/// What both go on from, and how the processor went on.
struct Start {
    program: Program,
    checkpoint: String,
    curve: Vec<Point>,
}

impl Start {
    /// In float64, in which everything is then, the checkpoint too, and in float32.
    fn both(work: &Workplace, program: Program) -> [Result<Self>; 2] {
        // Side by side: most of it is waiting for libraries and files.
        thread::scope(|scope| {
            [Types::Float64, Types::Float32]
                .map(|types| scope.spawn(move || Self::new(work, program, types)))
                .map(|start| start.join().unwrap_or_else(|panic| bail!("{}", said(panic.as_ref()))))
        })
    }

    fn new(work: &Workplace, program: Program, types: Types) -> Result<Self> {
        let first = format!("{}-{}-first", program.name(), types.name());
        let flags = ["--device", "cpu", "--precision", types.name(), "--epochs", "1"];
        work.run(&mut work.training(program, &first, &flags))?;
        let checkpoint = format!("{first}/checkpoints/last.safetensors");
        let mut start = Self { program, checkpoint, curve: Vec::new() };
        let output = format!("{}-{}-cpu", program.name(), types.name());
        start.go_on(work, &output, "cpu", types)?;
        start.curve = work.curve(&output)?;
        Ok(start)
    }

    /// Makes the steps that are compared, as the run `output`.
    fn go_on(&self, work: &Workplace, output: &str, device: &str, types: Types) -> Result<()> {
        let epochs = (1 + STEPS).to_string();
        let flags = ["--device", device, "--precision", types.name(), "--epochs", &epochs];
        let resume = ["--resume", self.checkpoint.as_str()];
        work.run(&mut work.training(self.program, output, &[&flags[..], &resume].concat()))
    }
}

/// The largest difference of the two curves in proportion, and where it is.
fn apart(got: &[Point], expected: &[Point], types: Types) -> Result<(f64, String)> {
    let steps = |curve: &[Point]| curve.iter().map(|point| point.step).collect::<Vec<_>>();
    ensure!(
        got.len() == STEPS && steps(got) == steps(expected),
        "the device made the steps {:?}, the processor {:?}",
        steps(got),
        steps(expected)
    );
    let (mut worst, mut note) = (0.0, String::new());
    for (got, expected) in got.iter().zip(expected) {
        let mut pairs = vec![("loss", got.loss, expected.loss)];
        if let (Types::Float64, Some(got), Some(expected)) = (types, got.norm, expected.norm) {
            pairs.push(("gradient norm", got, expected));
        }
        for (what, got_value, expected_value) in pairs {
            let figure = (got_value - expected_value).abs() / expected_value.abs().max(1e-12);
            if figure > worst || figure.is_nan() {
                (worst, note) = (figure, format!("{what} of step {}", got.step));
            }
        }
        if got.norm.is_none() {
            note.push_str(&format!("; step {} left out for overflow", got.step));
            break;
        }
    }
    Ok((worst, note))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: [f64; STEPS], norms: [Option<f64>; STEPS]) -> Vec<Point> {
        let points = (2..).zip(losses).zip(norms);
        points.map(|((step, loss), norm)| Point { step, loss, norm }).collect()
    }

    #[test]
    fn losses_are_compared_and_norms_in_float64() {
        let expected = curve([1.0, 2.0, 4.0], [Some(1.0); 3]);
        let got = curve([1.0, 2.0, 4.4], [Some(1.5); 3]);
        let (figure, note) = apart(&got, &expected, Types::Float32).unwrap();
        assert!((figure - 0.1).abs() < 1e-12 && note == "loss of step 4", "{figure} {note}");
        let (figure, note) = apart(&got, &expected, Types::Float64).unwrap();
        assert!(figure == 0.5 && note == "gradient norm of step 2", "{figure} {note}");
    }

    #[test]
    fn what_follows_an_overflow_is_not_compared_and_missing_steps_are_told() {
        let expected = curve([1.0, 2.0, 4.0], [Some(1.0); 3]);
        let got = curve([1.0, 2.0, 9.0], [Some(1.0), None, Some(1.0)]);
        let (figure, note) = apart(&got, &expected, Types::Float16).unwrap();
        assert!(figure == 0.0 && note.contains("step 3 left out"), "{figure} {note}");
        let error = apart(&got[..2], &expected, Types::Float16).unwrap_err().to_string();
        assert!(error.contains("[2, 3]") && error.contains("[2, 3, 4]"), "{error}");
        let got = curve([1.0, f64::NAN, 4.0], [Some(1.0); 3]);
        assert!(apart(&got, &expected, Types::Float32).unwrap().0.is_nan());
    }
}
