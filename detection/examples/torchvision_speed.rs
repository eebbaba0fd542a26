//! Mask R-CNN with ResNet-50 against torchvision's: inference on one image, and
//! one training step (forward, backward, SGD), with the same weights, image,
//! objects and threads.
//!
//! `cargo run --release -p spark-detection --example torchvision_speed`
//!
//! Rounds of both alternate, so that a busy machine slows both; torchvision runs
//! in a process of its own, whose threads, like this one's, sleep while they
//! wait. The ratio is that of the medians; the median of the rounds' ratios
//! stands beside it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use backbone::Mode;
use backbone::weights::{StateDict, write_safetensors};
use clap::Parser;
use data::rng::Rng;
use detection::modeling::weights::write_detector;
use detection::modeling::{MaskRcnn, ModelConfig};
use detection::structures::{Bitmap, Boxes, InstanceMask, Targets};
use engine::distributed::ProcessGroup;
use engine::optim::{Optimizer, Sgd, SgdConfig, param_groups};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[derive(Parser)]
struct Arguments {
    /// Height of the image in pixels.
    #[arg(long, default_value_t = 480)]
    height: i64,
    /// Width of the image in pixels.
    #[arg(long, default_value_t = 640)]
    width: i64,
    /// Threads of each side.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Timed rounds, after one to warm up.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// A Python that has torchvision; `SPARK_PYTHON`, or the one that
    /// `cargo xtask setup` makes, if none.
    #[arg(long)]
    python: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if std::env::var_os("OMP_WAIT_POLICY").is_none() {
        // Read when libgomp is loaded, so it takes a new process.
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        let error = command.args(std::env::args_os().skip(1)).env("OMP_WAIT_POLICY", "PASSIVE");
        return Err(error.exec().into());
    }
    tch::set_num_threads(arguments.threads);
    let folder = std::env::temp_dir().join(format!("torchvision_speed.{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&arguments, &folder);
    std::fs::remove_dir_all(&folder)?;
    measured
}

fn measure(arguments: &Arguments, folder: &Path) -> Result<()> {
    let mut ours = Ours::new(arguments)?;
    write_detector(folder.join("weights.pth"), &ours.store, ours.model.config())?;
    write_safetensors(folder.join("inputs.safetensors"), &ours.inputs(), &Default::default())?;
    let mut theirs = Theirs::start(arguments, folder)?;
    println!(
        "Mask R-CNN, ResNet-50-FPN, one image of {}×{}, float32, {} threads",
        arguments.width, arguments.height, arguments.threads
    );
    for task in ["infer", "train"] {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for round in 0..=arguments.rounds {
            let start = Instant::now();
            let count = ours.run(task)?;
            let seconds = start.elapsed().as_secs_f64();
            let (their_seconds, their_count) = theirs.run(task)?;
            if count != their_count {
                bail!("{count} detections here, {their_count} in torchvision");
            }
            if round > 0 {
                own.push(seconds);
                other.push(their_seconds);
            } else if task == "infer" {
                println!("{count} detections on both sides");
            }
        }
        let pairs = own.iter().zip(&other).map(|(own, other)| own / other).collect();
        let (own, other) = (median(own), median(other));
        println!(
            "{task}: {own:.3} s, torchvision {other:.3} s, ratio {:.3} (median of rounds {:.3})",
            own / other,
            median(pairs)
        );
    }
    theirs.child.kill()?;
    theirs.child.wait()?;
    Ok(())
}

struct Ours {
    store: VarStore,
    model: MaskRcnn,
    optimizer: Sgd,
    image: Tensor,
    targets: Targets,
}

impl Ours {
    fn new(arguments: &Arguments) -> Result<Self> {
        tch::manual_seed(0);
        let store = VarStore::new(Device::Cpu);
        let model = MaskRcnn::build(&store, &ModelConfig::mask_rcnn_torchvision())?;
        let Arguments { height, width, .. } = *arguments;
        let coarse = Tensor::rand([1, 3, height / 16, width / 16], (Kind::Float, Device::Cpu));
        let image = coarse.upsample_bicubic2d([height, width], false, None, None);
        let parameters = store
            .variables()
            .into_iter()
            .filter(|(_, variable)| variable.requires_grad())
            .collect::<std::collections::BTreeMap<_, _>>();
        let config = SgdConfig { nesterov: false, clip: None, ..SgdConfig::default() };
        let optimizer = Sgd::new(param_groups(parameters), config)?;
        let image = image.squeeze_dim(0).clamp(0, 1) * 255.0;
        let ours = Self { store, model, optimizer, image, targets: targets(height, width) };
        ours.find_objects()?;
        Ok(ours)
    }

    /// Untrained scores are all alike: spreads them until there are as many
    /// detections as there may be.
    fn find_objects(&self) -> Result<()> {
        let variables = self.store.variables();
        let scores = &variables["roi_heads.box_predictor.cls_score.weight"];
        for _ in 0..30 {
            if self.run_inference()? == self.model.config().roi.detections_per_image {
                return Ok(());
            }
            let _ = tch::no_grad(|| scores.shallow_clone().g_mul_scalar_(2.0));
        }
        bail!("these weights detect nothing")
    }

    fn inputs(&self) -> StateDict {
        let masks: Vec<Tensor> = self.targets.masks.iter().map(as_tensor).collect();
        [
            ("image".to_owned(), &self.image / 255.0),
            ("boxes".to_owned(), self.targets.boxes.tensor().shallow_clone()),
            ("labels".to_owned(), &self.targets.classes + 1),
            ("masks".to_owned(), Tensor::stack(&masks, 0)),
        ]
        .into()
    }

    /// One round; how many detections there are.
    fn run(&mut self, task: &str) -> Result<i64> {
        if task == "infer" {
            return self.run_inference();
        }
        self.optimizer.zero_grad();
        let images = std::slice::from_ref(&self.image);
        let targets = std::slice::from_ref(&self.targets);
        let mut rngs = [Rng::new(0, &[])];
        let world = ProcessGroup::alone();
        let losses = self.model.losses(images, targets, &Mode::train(), &mut rngs, &world)?;
        losses.total().backward();
        self.optimizer.step(1e-9, 0.0);
        Ok(0)
    }

    fn run_inference(&self) -> Result<i64> {
        let images = std::slice::from_ref(&self.image);
        Ok(self.model.infer(images, &Mode::eval())?[0].boxes.len())
    }
}

/// Ten objects, rectangles of several sizes.
fn targets(height: i64, width: i64) -> Targets {
    let mut rng = Rng::new(1, &[]);
    let (mut boxes, mut masks) = (Vec::new(), Vec::new());
    for object in 0..10 {
        let (h, w) = (height / (2 + object % 5), width / (2 + object % 4));
        let top = rng.below((height - h) as usize);
        let left = rng.below((width - w) as usize);
        let mut bitmap = Bitmap::empty(height as usize, width as usize);
        for row in bitmap.pixels.chunks_mut(width as usize).skip(top).take(h as usize) {
            row[left..left + w as usize].fill(1);
        }
        boxes.extend([left, top, left + w as usize, top + h as usize].map(|side| side as f32));
        masks.push(InstanceMask::Bitmap(bitmap));
    }
    let classes: Vec<i64> = (0..10).map(|object| object * 7).collect();
    Targets {
        boxes: Boxes(Tensor::from_slice(&boxes).view([-1, 4])),
        classes: Tensor::from_slice(&classes),
        masks,
    }
}

fn as_tensor(mask: &InstanceMask) -> Tensor {
    match mask {
        InstanceMask::Bitmap(bitmap) => {
            Tensor::from_slice(&bitmap.pixels).view([bitmap.height as i64, bitmap.width as i64])
        }
        _ => unreachable!("the objects here are bitmaps"),
    }
}

struct Theirs {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Theirs {
    fn start(arguments: &Arguments, folder: &Path) -> Result<Self> {
        let python = arguments.python.clone().unwrap_or_else(python);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchvision_speed.py");
        let mut child = Command::new(&python)
            .arg(script)
            .arg(folder.join("weights.pth"))
            .arg(folder.join("inputs.safetensors"))
            .arg(arguments.threads.to_string())
            .env("OMP_NUM_THREADS", arguments.threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: give --python", python.display()))?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, answers })
    }

    /// Seconds of one round, and detections.
    fn run(&mut self, task: &str) -> Result<(f64, i64)> {
        let input = self.child.stdin.as_mut().context("no input")?;
        writeln!(input, "{task}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut next = || words.next().context("torchvision's side ended");
        Ok((next()?.parse()?, next()?.parse()?))
    }
}

fn python() -> PathBuf {
    let given = std::env::var_os("SPARK_PYTHON").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let release = backbone::plugin::LIBTORCH_VERSION;
    let cache = home.join(format!(".cache/spark-backbone/torch-{release}/bin/python"));
    given.unwrap_or(cache)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
