//! Training steps of two processes with a thread each, against one process with two threads: the
//! same batch, the same cores. Also how much of the gradients' averaging the backward pass hides.
//!
//! `cargo run --release -p spark-pretrain --example processes_speed -- --model resnet50`
//!
//! Rounds of both alternate, each in processes of their own, so that a busy machine slows both;
//! medians are compared.

mod common;

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use backbone::{DropPathDraws, Mode};
use clap::Parser;
use data::rng::Rng;
use engine::distributed::{Gradients, ProcessGroup};
use engine::optim::Optimizer as _;
use pretrain::mask;
use pretrain::spark::Execution;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use common::Steps;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    of: Steps,
    /// Rounds of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Steps of a round that are timed, after one that is not; c10d times the first ten.
    #[arg(long, default_value_t = 6)]
    steps: usize,
    /// Processes; the machine's threads are divided among them.
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// One process of a round.
    #[arg(long, hide = true)]
    child: bool,
}

/// What a round's first process tells.
#[derive(Serialize, Deserialize)]
struct Round {
    seconds: Vec<f64>,
    backward_ms: f64,
    communication_ms: f64,
    hidden_ms: f64,
    megabytes: f64,
    buckets: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.child {
        return child(&arguments);
    }
    let Arguments { of: Steps { ref model, batch, size }, rounds, processes, .. } = arguments;
    println!(
        "SparK step of {model}, {batch} images of {size}×{size} px, float32: {processes} \
         processes × 1 thread against 1 × {processes}, {rounds} rounds"
    );
    let (mut one, mut several) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..rounds {
        one.push(median(round(1, processes)?.seconds));
        let round = round(processes, 1)?;
        several.push(median(round.seconds.clone()));
        last = Some(round);
    }
    let spread = |times: &[f64]| {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        format!("{:.3} s ({least:.3} to {most:.3})", median(times.to_vec()))
    };
    let ratio: Vec<f64> = one.iter().zip(&several).map(|(one, several)| several / one).collect();
    println!("1 process     {}", spread(&one));
    println!("{processes} processes   {}", spread(&several));
    println!("ratio         {:.3}", median(ratio));
    if let Some(round) = last {
        println!(
            "backward {:.0} ms; averaging {:.0} MB of gradients in {} buckets takes {:.0} ms, of \
             which {:.0} ms ({:.0} %) are hidden behind it",
            round.backward_ms,
            round.megabytes,
            round.buckets,
            round.communication_ms,
            round.hidden_ms,
            100.0 * round.hidden_ms / round.communication_ms.max(1e-9),
        );
    }
    Ok(())
}

/// Runs `processes` of `threads` threads each.
fn round(processes: usize, threads: usize) -> Result<Round> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let start = |rank: usize| {
        Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--child")
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", processes.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .stdout(Stdio::piped())
            .spawn()
    };
    let children = (0..processes).map(start).collect::<std::io::Result<Vec<_>>>()?;
    let mut told = None;
    for child in children {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "a process failed");
        told = told.or(serde_json::from_slice(&output.stdout).ok());
    }
    told.context("no process told its times")
}

fn child(arguments: &Arguments) -> Result<()> {
    let world = ProcessGroup::from_env(Duration::from_secs(300))?;
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let (spark, mut optimizer) = arguments.of.build(&store)?;
    let gradients = Gradients::new(&world, &store)?;

    let Steps { batch, size, .. } = arguments.of;
    let own = batch / world.size() as i64;
    let images = Tensor::randn([own, 3, size, size], (Kind::Float, Device::Cpu));
    let grid = spark.patch_grid((size, size))?;
    let keep = (grid.0 * grid.1 * 2 / 5) as usize;
    let first = world.rank() as i64 * own;
    let mut seconds = Vec::new();
    for step in 0..=arguments.steps {
        let start = Instant::now();
        optimizer.zero_grad();
        gradients.begin()?;
        let generators = (0..own).map(|n| Rng::new(step as u64, &[(first + n) as u64]));
        let mask = mask::draw(generators, grid, keep, Device::Cpu)?;
        let mode = Mode::train()
            .with_drop_path(DropPathDraws::Off)
            .with_sync_batch_norm(world.sync_batch_norm());
        let loss = spark.forward(&images, &mask, &mode, Execution::Packed)?.loss;
        gradients.backward(&loss, true)?;
        optimizer.step(1e-4, 0.05);
        world.barrier()?;
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    // c10d takes in a step's times when the next one begins.
    gradients.begin()?;
    let milliseconds = |nanoseconds: i64| nanoseconds as f64 / 1e6;
    let timings = gradients.timings()?;
    let of = |part: fn(&engine::distributed::Timings) -> i64| {
        timings.as_ref().map_or(0.0, |timings| milliseconds(part(timings)))
    };
    let buckets = gradients.buckets()?;
    if world.is_main() {
        let round = Round {
            seconds,
            backward_ms: of(|t| t.backward_ns),
            communication_ms: of(|t| t.communication_ns),
            hidden_ms: of(|t| t.hidden_ns),
            megabytes: buckets.iter().sum::<i64>() as f64 / 1e6,
            buckets: buckets.len(),
        };
        println!("{}", serde_json::to_string(&round)?);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
