//! As many processes as there are devices, one at least: the group itself, averaged gradients, and
//! batch norms that share their statistics. One process alone sends to itself.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use backbone::layers::{Activation, BatchNorm2d, Conv2d, Conv2dConfig, Layer};
use backbone::{FeatureMap, Mode};
use clap::Args;
use engine::distributed::{Gradients, Launch, ProcessGroup};
use tch::nn::VarStore;
use tch::{Cuda, Device, Kind, Tensor};

use super::Setting;
use crate::cli::own_path;
use crate::compare::{Apart, of_tensors};
use crate::facts::DeviceKind;
use crate::outcome::{Filling, Types, filled, noise};
use crate::recorder::{Finding, Recorder};
use crate::report::Tolerance;

/// What the processes tell of, in order.
const CHECKS: [&str; 3] = ["group", "gradients", "shared batch norm"];

/// Processes on a processor.
const ON_PROCESSORS: usize = 2;

/// How long processes wait for each other.
const TIMEOUT: Duration = Duration::from_secs(20);

fn tolerance(check: &str) -> Tolerance {
    match check {
        "group" => Tolerance::new(0.0, "whole numbers are sent and added up without rounding"),
        _ => Tolerance::new(
            1e-10,
            "float64 sums over the processes come in another order than those of one, 1e-15, and \
             a norm's gradient loses some digits to cancellation",
        ),
    }
}

/// The checks.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    let counts = match setting.device {
        Device::Cuda(_) if !cfg!(feature = "nccl") => {
            let why = "this program was built without NCCL: see `cargo xtask gpu-check --help`";
            CHECKS.iter().for_each(|check| recorder.skip(check, why));
            return Ok(());
        }
        Device::Cuda(_) => vec![(Cuda::device_count() as usize).max(1)],
        _ => vec![1, ON_PROCESSORS],
    };
    for count in counts {
        let found = processes(setting.kind, count);
        for check in CHECKS {
            let name = format!("{check}, {count} process{}", if count == 1 { "" } else { "es" });
            recorder.check(&name, || {
                let found = found.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                let of_rank = |told: &Told| told.get(check).copied();
                let figures: Option<Vec<f64>> = found.iter().map(of_rank).collect();
                let figures = figures.context("a process did not tell of it")?;
                let worst = figures.into_iter().reduce(|a, b| if a > b { a } else { b });
                let worst = worst.context("there was no process")?;
                Ok(Finding::apart(worst, tolerance(check), "the worst of all processes"))
            });
        }
    }
    Ok(())
}

/// What a process found: a figure for each check.
type Told = BTreeMap<String, f64>;

/// Which of the processes this is.
#[derive(Debug, Args)]
pub struct RankArgs {
    #[arg(long)]
    rank: usize,
    #[arg(long)]
    size: usize,
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum)]
    device: DeviceKind,
}

/// Runs the checks in `count` processes; what each told.
fn processes(kind: DeviceKind, count: usize) -> Result<Vec<Told>> {
    // Free now; should another program take it meanwhile, this fails and does not lie.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.context("no port can be had on this machine")?.port().to_string();
    let start = |rank: usize| -> Result<Child> {
        let mut command = Command::new(own_path()?);
        let (rank, size) = (rank.to_string(), count.to_string());
        command.args(["rank", "--rank", &rank, "--size", &size, "--port", &port]);
        command.args(["--device", kind.name()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("cannot start a process")
    };
    // Ended with the section, should it come to nothing.
    let children = (0..count).map(start).collect::<Result<Vec<Child>>>()?;
    let outputs = children.into_iter().map(Child::wait_with_output);
    let outputs = outputs.collect::<Result<Vec<_>, _>>().context("waiting for a process")?;
    let told = outputs.iter().enumerate().map(|(rank, output)| {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("rank {rank}: {}", said.trim());
        }
        let last = output.stdout.rsplit(|byte| *byte == b'\n').find(|line| !line.is_empty());
        serde_json::from_slice(last.unwrap_or_default())
            .with_context(|| format!("rank {rank} told no figures"))
    });
    told.collect()
}

/// One of the processes: prints its figures.
pub fn rank(arguments: &RankArgs) -> Result<()> {
    let &RankArgs { rank, size, port, device } = arguments;
    engine::device::use_threads(1);
    let launch = Launch {
        rank,
        world_size: size,
        local_rank: rank,
        local_world_size: size,
        master_addr: "127.0.0.1".into(),
        master_port: port,
        agent_store: false,
        restarts: 0,
        name: None,
        job: None,
        own_cores: false,
    };
    let world = ProcessGroup::join_even_alone(launch, TIMEOUT)?;
    let device = match device {
        DeviceKind::Cpu => Device::Cpu,
        DeviceKind::Cuda => Device::Cuda(rank),
    };
    world.use_device(device)?;
    ensure!(!world.is_alone(), "the processes form no group");
    let figures =
        [group(&world, device)?, gradients(&world, device)?, shared_batch_norm(&world, device)?];
    world.barrier()?;
    let told: Told = CHECKS.map(str::to_owned).into_iter().zip(figures).collect();
    println!("{}", serde_json::to_string(&told).context("figures are no JSON")?);
    Ok(())
}

/// How far numbers are off that are added up, sent and gathered.
fn group(world: &ProcessGroup, device: Device) -> Result<f64> {
    let (rank, size) = (world.rank() as f64, world.size() as f64);
    let mut sums = [1.0, rank];
    world.sum(&mut sums)?;
    let mut off = (sums[0] - size).abs().max((sums[1] - size * (size - 1.0) / 2.0).abs());

    let sent = Tensor::full([3, 5], rank + 1.0, (Kind::Float, device));
    world.broadcast(&BTreeMap::from([("sent".to_owned(), sent.shallow_clone())]))?;
    off = off.max((sent - 1.0).abs().max().double_value(&[]));

    // As many rows as the process's number, and one.
    let rows = Tensor::full([world.rank() as i64 + 1, 2], rank, (Kind::Double, device));
    let rows = world.gather_rows(&rows)?;
    let expected: Vec<f64> =
        (0..world.size()).flat_map(|rank| vec![rank as f64; 2 * (rank + 1)]).collect();
    let got = Vec::<f64>::try_from(rows.view([-1]).to_device(Device::Cpu))?;
    ensure!(got.len() == expected.len(), "gathered {} of {}", got.len(), expected.len());
    Ok(got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(off, f64::max))
}

const FILLING: Filling = Filling { seed: 3, norms: 1.0 };

/// Images of each process.
const IMAGES: i64 = 2;

/// How far averaged gradients are from those of all images in one process.
fn gradients(world: &ProcessGroup, device: Device) -> Result<f64> {
    type Network = Vec<Box<dyn Layer>>;
    let build = |store: &VarStore| {
        let path = store.root();
        let conv = |name, from, to| {
            let config = Conv2dConfig::square(3).bias();
            Box::new(Conv2d::new(&(&path / name), from, to, config))
        };
        let layers: Network =
            vec![conv("first", 2, 4), Box::new(Activation::Gelu), conv("second", 4, 2)];
        Ok(layers)
    };
    let loss = |network: &Network, images: Tensor| {
        network.forward(&FeatureMap::Grid(images), &Mode::train()).tensor().square().mean(None)
    };
    let (alone, network) = filled(device, Types::Float64, FILLING, build)?;
    let images = noise(5, &[IMAGES * world.size() as i64, 2, 8, 8], device);
    loss(&network, images.shallow_clone()).f_backward()?;

    let (store, network) = filled(device, Types::Float64, FILLING, build)?;
    let gradients = Gradients::new(world, &store)?;
    gradients.begin()?;
    let own = images.narrow(0, IMAGES * world.rank() as i64, IMAGES);
    gradients.backward(&loss(&network, own), true)?;

    let expected = alone.variables();
    let mut worst = Apart::none();
    for (name, variable) in store.variables() {
        worst = worst.or(of_tensors(&variable.grad(), &expected[&name].grad(), &name)?);
    }
    Ok(worst.figure)
}

/// How far a shared batch norm is from that of all images in one process. Process n has n + 1
/// images.
fn shared_batch_norm(world: &ProcessGroup, device: Device) -> Result<f64> {
    const CHANNELS: i64 = 3;
    let (rank, size) = (world.rank() as i64, world.size() as i64);
    let (start, rows) = (rank * (rank + 1) / 2, rank + 1);
    let x = noise(8, &[size * (size + 1) / 2, CHANNELS, 4, 5], device);
    let weights = noise(9, &x.size(), device);
    let pass = |x: &Tensor, weights: &Tensor, mode: &Mode| -> Result<BTreeMap<String, Tensor>> {
        let (store, norm) = filled(device, Types::Float64, FILLING, |store| {
            Ok(BatchNorm2d::new(&store.root(), CHANNELS))
        })?;
        let leaf = x.detach().copy().set_requires_grad(true);
        let y = norm.forward(&FeatureMap::Grid(leaf.shallow_clone()), mode);
        (y.tensor() * weights).sum(Kind::Double).f_backward()?;
        let mut found: BTreeMap<_, _> =
            store.variables().into_iter().filter(|(name, _)| name.starts_with("running")).collect();
        found.insert("output".into(), y.tensor().detach());
        found.insert("gradient of the input".into(), leaf.grad());
        Ok(found)
    };
    let expected = pass(&x, &weights, &Mode::train())?;
    let own = |whole: &Tensor| whole.narrow(0, start, rows).contiguous();
    let mode = Mode::train().with_sync_batch_norm(world.sync_batch_norm());
    let got = pass(&own(&x), &own(&weights), &mode)?;
    // A norm cannot fail by itself; the group knows whether it did.
    world.check()?;
    let mut worst = Apart::none();
    for (name, got) in &got {
        let expected = &expected[name];
        let expected = if name.starts_with("running") { expected.copy() } else { own(expected) };
        worst = worst.or(of_tensors(got, &expected, name)?);
    }
    Ok(worst.figure)
}
