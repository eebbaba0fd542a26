//! Where the time of a SparK step goes: libtorch's operators by their own time.
//!
//! `cargo run --release -p spark-pretrain --example step_profile -- --model resnet50`

mod common;

use std::time::Instant;

use anyhow::Result;
use backbone::{DropPathDraws, Mode};
use clap::Parser;
use data::rng::Rng;
use engine::allocator::peak_of_tensors;
use engine::operators::OpProfile;
use engine::optim::Optimizer as _;
use pretrain::mask;
use pretrain::spark::Execution;
use tch::{Device, Kind, Tensor, nn};

use common::Steps;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    of: Steps,
    /// Threads of libtorch.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Timed steps.
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Arithmetic in bfloat16.
    #[arg(long)]
    bfloat16: bool,
}

fn main() -> Result<()> {
    engine::allocator::keep_freed_memory();
    let arguments = Arguments::parse();
    tch::set_num_threads(arguments.threads);
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let (spark, mut optimizer) = arguments.of.build(&store)?;
    let Steps { batch, size, .. } = arguments.of;
    let images = Tensor::randn([batch, 3, size, size], (Kind::Float, Device::Cpu));
    let grid = spark.patch_grid((size, size))?;
    let keep = (0.4 * (grid.0 * grid.1) as f64).round() as usize;
    let compute = arguments.bfloat16.then_some(Kind::BFloat16);

    let mut step = |number: u64| -> Result<[(f64, f64); 3]> {
        let mut clock = Instant::now();
        let mut lap = || {
            let seconds = std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
            (seconds, peak_of_tensors() as f64 / 1e6)
        };
        optimizer.zero_grad();
        let generators = (0..batch as u64).map(|image| Rng::new(0, &[number, image]));
        let mask = mask::draw(generators, grid, keep, Device::Cpu)?;
        let mode = Mode::train()
            .with_drop_path(DropPathDraws::Off)
            .with_compute(compute)
            .with_bf16_weight_grads(true);
        let loss = spark.loss(&images, &mask, &mode, Execution::Packed)?;
        let forward = lap();
        loss.backward();
        let backward = lap();
        optimizer.step(1e-3, 0.04);
        Ok([forward, backward, lap()])
    };
    step(0)?;
    for number in 0..arguments.steps as u64 {
        let [forward, backward, update] = step(number + 1)?;
        let total = forward.0 + backward.0 + update.0;
        let part = |(seconds, megabytes): (f64, f64)| format!("{seconds:.3} s, {megabytes:.0} MB");
        let parts = [("forward", forward), ("backward", backward), ("update", update)];
        let parts = parts.map(|(name, figures)| format!("{name} {}", part(figures)));
        println!("{total:.3} s: {}", parts.join("; "));
    }
    let (done, record) = OpProfile::of(|| step(9))?;
    done?;
    println!("{record}");
    Ok(())
}
