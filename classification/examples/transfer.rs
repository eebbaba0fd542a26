//! Does pretraining help on these images? Pretrains models on unlabelled ones, fine-tunes them on
//! the labelled ones from there and from random weights, several seeds each, and draws the curves.
//!
//! ```text
//! cargo build --release --workspace --bins --examples
//! target/release/examples/transfer --data emoji --output transfer
//! ```
//!
//! The same command continues after an interruption.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use data::write_file;
use engine::metrics::series;
use engine::picture::{LineChart, png};

/// Of the picture, in pixels.
const SIZE: (u32, u32) = (1200, 640);
/// The two ways to begin, as runs and curves are called.
const STARTS: [Start; 2] = [Start::Scratch, Start::Pretrained];

/// Compares fine-tuning from pretraining with training from random weights.
#[derive(Parser)]
struct Arguments {
    /// Folder with `unlabelled`, `train/CLASS` and `val/CLASS`.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the runs, the table and the picture.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Models to compare on.
    #[arg(long, value_delimiter = ',', default_value = "resnet18,convnext_atto")]
    models: Vec<String>,
    /// Runs of each kind.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Programs at a time, each on its share of the cores.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// More flags of `pretrain train`, in one word.
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    pretrain: String,
    /// More flags of `classify train`, in one word.
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    classify: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Start {
    Scratch,
    Pretrained,
}

impl Start {
    fn name(self) -> &'static str {
        match self {
            Start::Scratch => "scratch",
            Start::Pretrained => "pretrained",
        }
    }
}

/// A program to run, and the folder of its run.
struct Job {
    command: Command,
    run: PathBuf,
    /// What decides the run's result.
    asked: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.jobs > 0 && arguments.seeds > 0, "--jobs and --seeds must be at least 1");
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make {}", arguments.output.display()))?;
    let pretraining = arguments.models.iter().map(|model| arguments.pretraining(model));
    run_all(pretraining.collect::<Result<_>>()?, arguments.jobs)?;
    let mut tuning = VecDeque::new();
    for model in &arguments.models {
        for seed in 0..arguments.seeds {
            for start in STARTS {
                tuning.push_back(arguments.tuning(model, start, seed)?);
            }
        }
    }
    run_all(tuning, arguments.jobs)?;
    arguments.compare()
}

impl Arguments {
    fn run(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    fn tuned(&self, model: &str, start: Start, seed: u64) -> PathBuf {
        self.run(&format!("{model}-{}-{seed}", start.name()))
    }

    fn pretraining(&self, model: &str) -> Result<Job> {
        let run = self.run(&format!("{model}-pretraining"));
        let mut command = self.program("pretrain", &run, model, &self.pretrain)?;
        command.arg("--data").arg(self.data.join("unlabelled"));
        Ok(Job { command, run, asked: self.pretrain.clone() })
    }

    fn tuning(&self, model: &str, start: Start, seed: u64) -> Result<Job> {
        let run = self.tuned(model, start, seed);
        let mut command = self.program("classify", &run, model, &self.classify)?;
        command.arg("--data").arg(&self.data).args(["--seed", &seed.to_string()]);
        if start == Start::Pretrained {
            let backbone = self.run(&format!("{model}-pretraining"));
            command.arg("--backbone-weights").arg(backbone);
        }
        Ok(Job { command, run, asked: format!("{}; {}", self.pretrain, self.classify) })
    }

    /// `name train`, built beside this example, with what both programs are told. The demo's
    /// preset comes first, so that `flags` override it.
    fn program(&self, name: &str, run: &Path, model: &str, flags: &str) -> Result<Command> {
        let own = std::env::current_exe()?;
        let programs = own.parent().and_then(Path::parent);
        let program = programs.context("an executable lies in a folder")?.join(name);
        ensure!(
            program.is_file(),
            "{} is not there: `cargo build --release --workspace --bins` makes it",
            program.display()
        );
        let cores = std::thread::available_parallelism()?.get();
        let threads = (cores / self.jobs).max(1).to_string();
        let mut command = Command::new(program);
        command.args(["train", "--preset", "demo", "--workers", "1", "--threads", &threads]);
        command.args(["--model", model, "--output"]).arg(run).args(flags.split_whitespace());
        // A run that was cut short goes on; one without a checkpoint begins anew.
        let begun = run.join("checkpoints").join("last.safetensors").exists();
        command.arg(if begun { "--resume" } else { "--overwrite" });
        Ok(command)
    }

    /// Prints the table, and writes it and the picture.
    fn compare(&self) -> Result<()> {
        let mut chart =
            LineChart::new("Fine-tuning on few labels", "epoch", "validation top-1 in %");
        let mut table = String::from("model,start,seed,top1_percent\n");
        println!("{:<18} {:<12} {:>7} {:>7}   each", "model", "start", "mean", "spread");
        for model in &self.models {
            for start in STARTS {
                let curves = (0..self.seeds)
                    .map(|seed| accuracy(&self.tuned(model, start, seed)))
                    .collect::<Result<Vec<_>>>()?;
                let last: Vec<f64> =
                    curves.iter().filter_map(|curve| Some(curve.last()?.1)).collect();
                for (seed, top1) in last.iter().enumerate() {
                    table += &format!("{model},{},{seed},{top1:.4}\n", start.name());
                }
                let (mean, spread) = mean_and_deviation(&last);
                let each: Vec<String> = last.iter().map(|top1| format!("{top1:.2}")).collect();
                let each = each.join(" ");
                println!("{model:<18} {:<12} {mean:>7.2} {spread:>7.2}   {each}", start.name());
                for curve in &curves {
                    chart = chart.faint_series("", curve);
                }
                chart = chart.series(&format!("{model}, {}", start.name()), &mean_of(&curves));
            }
        }
        let picture = self.output.join("transfer.png");
        write_file(&picture, &png(&chart.render(SIZE.0, SIZE.1)?)?)?;
        let csv = self.output.join("transfer.csv");
        write_file(&csv, table.as_bytes())?;
        println!("{}\n{}", picture.display(), csv.display());
        Ok(())
    }
}

/// Runs the programs, `at_once` at a time, each with its words in a file beside its run.
fn run_all(jobs: VecDeque<Job>, at_once: usize) -> Result<()> {
    let queue = Mutex::new(jobs);
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            while let Some(job) = next() {
                if let Err(error) = job.run() {
                    // The others end with what they are at.
                    while next().is_some() {}
                    return Err(error);
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread that waits for a program panicked"),
        })
    })
}

impl Job {
    fn run(mut self) -> Result<()> {
        let done = self.run.join("done");
        if let Ok(asked) = fs::read_to_string(&done) {
            ensure!(
                asked == self.asked,
                "{} was made with other flags: give another --output, or remove it",
                self.run.display()
            );
            return Ok(());
        }
        println!("{}", self.run.display());
        let path = self.run.with_extension("log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        self.command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
        let status = self.command.status().context("cannot start a program")?;
        ensure!(status.success(), "{:?} failed: see {}", self.command, path.display());
        Ok(write_file(&done, self.asked.as_bytes())?)
    }
}

/// A run's top-1 in percent against epochs: of the averaged weights, if it has them.
fn accuracy(run: &Path) -> Result<Vec<(f64, f64)>> {
    let metrics = run.join("metrics.jsonl");
    let mut points = series(&metrics, "finished_epoch", "ema_top1")?;
    if points.is_empty() {
        points = series(&metrics, "finished_epoch", "top1")?;
    }
    ensure!(!points.is_empty(), "{} has no evaluation", metrics.display());
    Ok(points.into_iter().map(|(epoch, share)| (epoch, 100.0 * share)).collect())
}

/// The mean of curves at the places that all of them have.
fn mean_of(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let length = curves.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |at: usize| {
        let sum: f64 = curves.iter().map(|curve| curve[at].1).sum();
        (curves[0][at].0, sum / curves.len() as f64)
    };
    (0..length).map(mean).collect()
}

/// The mean, and the deviation of a sample (divided by n − 1).
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
