//! Forward and backward of an encoder on visible patches, against the same
//! network computed on the whole grid and masked after every layer.
//!
//! `cargo run --release -p spark-pretrain --example encoder_speed -- --model resnet50`
//!
//! The plain network on the whole grid, nothing masked, runs along for scale.
//! Rounds of all three alternate in one process, so that a busy machine slows
//! all; medians are compared, of wall-clock and of processor time (which other
//! programs disturb less; libtorch's threads must not spin while they wait, so
//! set OMP_WAIT_POLICY=PASSIVE to use it). Peak memory is taken in a process
//! each.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use backbone::models::{self, BuildOptions};
use backbone::{Backbone, DropPathDraws, FeatureMap, Mode, PatchMask};
use clap::{Parser, ValueEnum};
use tch::{Device, Kind, Tensor, nn};

#[derive(Parser)]
struct Arguments {
    /// A registered model.
    #[arg(long, default_value = "resnet50")]
    model: String,
    /// Images.
    #[arg(long, default_value_t = 8)]
    batch: i64,
    /// Side of the images in pixels.
    #[arg(long, default_value_t = 224)]
    size: i64,
    /// Share of the patches that is masked.
    #[arg(long, default_value_t = 0.6)]
    mask_ratio: f64,
    /// Threads of libtorch.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Timed rounds of each execution, after one to warm up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Arithmetic in bfloat16.
    #[arg(long)]
    bfloat16: bool,
    /// One round of this execution alone; prints the process's peak memory in
    /// kilobytes before and after.
    #[arg(long, hide = true)]
    memory: Option<Execution>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Execution {
    /// Visible patches alone.
    Packed,
    /// The whole grid, masked after every layer.
    Masked,
    /// The whole grid, nothing masked.
    Plain,
}

const EXECUTIONS: [Execution; 3] = [Execution::Packed, Execution::Masked, Execution::Plain];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.rounds == 0 || arguments.threads < 1 || arguments.batch < 1 {
        bail!("--rounds, --threads and --batch must be at least 1");
    }
    tch::set_num_threads(arguments.threads);
    let bench = Bench::new(&arguments)?;
    if let Some(execution) = arguments.memory {
        let before = peak_kilobytes()?;
        bench.round(execution)?;
        println!("{before} {}", peak_kilobytes()?);
        return Ok(());
    }

    println!(
        "{} encoder, forward and backward, {}, {} images of {}×{} px, {:.0} % masked, {} threads",
        arguments.model,
        if arguments.bfloat16 { "bfloat16" } else { "float32" },
        arguments.batch,
        arguments.size,
        arguments.size,
        100.0 * arguments.mask_ratio,
        arguments.threads,
    );
    let mut times: [Vec<Time>; 3] = Default::default();
    for round in 0..=arguments.rounds {
        for (execution, times) in EXECUTIONS.into_iter().zip(&mut times) {
            let time = bench.round(execution)?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    let wall = times.each_ref().map(|times| median(times.iter().map(|time| time.wall)));
    let cpu = times.each_ref().map(|times| median(times.iter().map(|time| time.cpu)));
    for (index, execution) in EXECUTIONS.into_iter().enumerate() {
        let (before, after) = memory_of(execution)?;
        println!(
            "{:<7} {:7.3} s ({:4.2}×)   processor {:7.2} s ({:4.2}×)   peak {:5.0} MB, of which \
             the pass {:5.0} MB",
            format!("{execution:?}").to_lowercase(),
            wall[index],
            wall[index] / wall[0],
            cpu[index],
            cpu[index] / cpu[0],
            after / 1e3,
            (after - before) / 1e3,
        );
    }
    Ok(())
}

/// Seconds.
struct Time {
    wall: f64,
    cpu: f64,
}

struct Bench {
    store: nn::VarStore,
    model: Box<dyn Backbone>,
    images: Tensor,
    active: Tensor,
    compute: Option<Kind>,
}

impl Bench {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        tch::manual_seed(0);
        let store = nn::VarStore::new(Device::Cpu);
        let options = BuildOptions::default();
        let model = models::find(&arguments.model)?.build(&store.root(), &options)?;
        let Arguments { batch, size, mask_ratio, .. } = *arguments;
        let side = size / model.total_stride();
        let keep = ((side * side) as f64 * (1.0 - mask_ratio)).round() as i64;
        let order = Tensor::rand([batch, side * side], (Kind::Float, Device::Cpu));
        let ranks = order.argsort(1, false).argsort(1, false);
        Ok(Self {
            store,
            model,
            images: Tensor::randn([batch, 3, size, size], (Kind::Float, Device::Cpu)),
            active: ranks.lt(keep).view([batch, 1, side, side]),
            compute: arguments.bfloat16.then_some(Kind::BFloat16),
        })
    }

    /// One forward and backward, the mask's tables included.
    fn round(&self, execution: Execution) -> anyhow::Result<Time> {
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        let mask = PatchMask::from_active(&self.active)?;
        let x = match execution {
            Execution::Packed => FeatureMap::patches(&self.images, &mask)?,
            Execution::Masked => FeatureMap::masked(&self.images, &mask)?,
            Execution::Plain => FeatureMap::Grid(self.images.shallow_clone()),
        };
        let mode = Mode::train().with_drop_path(DropPathDraws::Off).with_compute(self.compute);
        let pyramid = self.model.forward(&x, &mode)?;
        let loss: Tensor = pyramid.iter().map(|map| map.tensor().square().mean(Kind::Float)).sum();
        loss.backward();
        let time = Time { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds()? - cpu };
        for parameter in self.store.trainable_variables() {
            let mut gradient = parameter.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
        Ok(time)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Peak memory in kilobytes (before, after) a round in a process of its own.
fn memory_of(execution: Execution) -> anyhow::Result<(f64, f64)> {
    let output = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--memory", &format!("{execution:?}").to_lowercase()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [before, after] if output.status.success() => Ok((before, after)),
        _ => bail!("measuring memory: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The largest resident size this process has had.
fn peak_kilobytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .context("peak memory is read from Linux's /proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1)).context("no VmHWM")?;
    Ok(figure.parse()?)
}

/// Processor time of this process's threads so far, to a hundredth of a second.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")
        .context("processor time is read from Linux's /proc/self/stat")?;
    // Fields 14 and 15, in hundredths of a second; the second field is the
    // program's name in parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
