//! The programs, small data for them, and what their runs leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use engine::outputs::make_folder;
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::sections::Setting;

/// A program that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// SparK pretraining.
    Pretrain,
    /// Fine-tuning a classifier.
    Classify,
    /// Fine-tuning a detector.
    Detect,
}

/// Images of a step, and of an epoch: a step is an epoch.
const IMAGES: u32 = 4;

/// Settings of a detector of seconds.
const DETECTOR: &str = include_str!("detector.toml");

impl Program {
    /// In the order in which one uses them.
    pub const ALL: [Self; 3] = [Self::Pretrain, Self::Classify, Self::Detect];

    /// Its file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Classify => "classify",
            Self::Detect => "detect",
        }
    }

    /// Flags of a training of seconds on the data of [`Workplace`], whose steps are epochs.
    fn training(self) -> &'static str {
        match self {
            Self::Pretrain => {
                "--data images --preset paper --model resnet18 --input-size 64 --decoder-width 32 \
                 --batch-size 4 --warmup-epochs 0 --base-lr 0.05 --optimizer adamw --picture-epochs 0"
            }
            Self::Classify => {
                "--data labelled --preset demo --input-size 64 --batch-size 4 --warmup-epochs 0 \
                 --eval-epochs 0"
            }
            Self::Detect => "--data shapes --preset mask_rcnn_resnet50_1x --config detector.toml",
        }
    }
}

/// A folder with data and runs, and the programs.
#[derive(Debug)]
pub struct Workplace {
    folder: PathBuf,
    programs: PathBuf,
}

impl Workplace {
    /// With data for all programs in the section's folder.
    pub fn new(setting: &Setting) -> Result<Self> {
        let folder = setting.work.clone();
        let programs = setting.places.programs()?;
        for number in 0..IMAGES {
            let class = format!("class{}", number % 2);
            for part in ["images", "labelled/train", "labelled/val"] {
                let place = folder.join(part).join(&class);
                make_folder(&place)?;
                picture(number, (96, 80)).save(place.join(format!("{number}.png")))?;
            }
        }
        let photos = folder.join("photos");
        make_folder(&photos)?;
        for number in 0..2 {
            picture(number, (320, 240)).save(photos.join(format!("{number}.png")))?;
        }
        fs::write(folder.join("detector.toml"), DETECTOR).context("cannot write detector.toml")?;
        Ok(Self { folder, programs })
    }

    /// Why this program cannot be tried, if it is not there.
    pub fn lacks(&self, program: Program) -> Option<String> {
        let file = self.programs.join(program.name());
        (!file.is_file()).then(|| {
            format!(
                "there is no {}: build it (cargo build --workspace --bins), or name its folder \
                 with --programs",
                file.display()
            )
        })
    }

    /// Makes what `program` needs besides images.
    pub fn prepare(&self, program: Program) -> Result<()> {
        if program != Program::Detect || self.folder.join("shapes").exists() {
            return Ok(());
        }
        let words = "make-demo --photos photos --output shapes --val 2 --size 64 --classes 2 \
                     --objects 2 --train 2";
        self.run(self.command(program).args(words.split_whitespace()))
    }

    /// `program train` into the folder `output`, with `more`.
    pub fn training(&self, program: Program, output: &str, more: &[&str]) -> Command {
        let mut command = self.command(program);
        command.args(["train", "--output", output]).args(program.training().split_whitespace());
        command.args("--workers 2 --log-steps 1 --seed 5".split_whitespace()).args(more);
        command
    }

    fn command(&self, program: Program) -> Command {
        let mut command = Command::new(self.programs.join(program.name()));
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Runs `command` to its end.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let output = command
            .output()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        ensure!(output.status.success(), "{}", failure(command, &output.stderr));
        Ok(())
    }

    /// Starts `command`, and kills it once the run `output` has recorded `step`.
    pub fn kill_after(&self, command: &mut Command, output: &str, step: u64) -> Result<()> {
        let log = self.folder.join(format!("{output}.log"));
        let file =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command.stdout(Stdio::null()).stderr(file).spawn();
        let mut child =
            child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let reached = self.wait_for(&mut child, output, step);
        // SIGKILL: nothing is saved that was not.
        let _ = child.kill();
        child.wait().context("waiting for a program")?;
        if reached? {
            return Ok(());
        }
        bail!("{}", failure(command, &fs::read(&log).unwrap_or_default()))
    }

    /// Whether the run has recorded `step` before it ended.
    fn wait_for(&self, child: &mut Child, output: &str, step: u64) -> Result<bool> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let ended = child.try_wait().context("waiting for a program")?.is_some();
            if self.curve(output).is_ok_and(|curve| curve.iter().any(|point| point.step >= step)) {
                return Ok(true);
            }
            if ended {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("{output} has not recorded step {step} within {} s", PATIENCE.as_secs())
    }

    /// What the run `output` recorded of each step.
    pub fn curve(&self, output: &str) -> Result<Vec<Point>> {
        let file = self.folder.join(output).join("metrics.jsonl");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        // The last line may be being written.
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(records.filter_map(|record| Point::of(&record)).collect())
    }
}

/// What a run recorded of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// From 1.
    pub step: u64,
    /// The sum of the losses.
    pub loss: f64,
    /// Before clipping; none where float16 gradients overflowed and the step was left out.
    pub norm: Option<f64>,
}

impl Point {
    fn of(record: &Value) -> Option<Self> {
        let number = |name: &str| record.get(name).and_then(Value::as_f64);
        // Records of evaluations have no loss.
        Some(Self {
            step: record.get("step")?.as_u64()?,
            loss: number("loss")?,
            norm: number("grad_norm"),
        })
    }
}

/// What a program that failed said at last.
fn failure(command: &Command, said: &[u8]) -> String {
    const LINES: usize = 3;
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join(" / ");
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    format!("{} failed: {last}", name.display())
}

/// Coloured discs on a gradient.
fn picture(seed: u32, (width, height): (u32, u32)) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mut colour = [(x * 2) as u8, (y * 3) as u8, (x + y + seed * 40) as u8];
        for disc in 0..4u32 {
            let hash = (seed * 31 + disc * 17 + 7).wrapping_mul(2_654_435_761);
            let (cx, cy, r) = ((hash >> 8) % width, (hash >> 16) % height, 6 + (hash >> 24) % 14);
            if x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < r * r {
                colour = [(hash >> 3) as u8, (hash >> 11) as u8, (hash >> 19) as u8];
            }
        }
        Rgb(colour)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_steps_are_told_from_others() {
        let point = |text: &str| Point::of(&serde_json::from_str(text).unwrap());
        let step = Point { step: 3, loss: 0.5, norm: Some(2.0) };
        assert_eq!(point(r#"{"step":3,"loss":0.5,"grad_norm":2}"#), Some(step));
        assert_eq!(point(r#"{"step":3,"loss":0.5,"grad_norm":null}"#).unwrap().norm, None);
        assert_eq!(point(r#"{"step":3,"bbox/AP":0.5}"#), None);
    }

    #[test]
    fn a_failure_is_the_end_of_what_was_said() {
        let command = Command::new("/somewhere/pretrain");
        let text = failure(&command, b"a\nb\n\nc\nerror: no images\n");
        assert_eq!(text, "pretrain failed: b / c / error: no images");
    }
}
