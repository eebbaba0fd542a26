//! The detector's RoIAlign and NMS against torchvision's, on the CPU.
//!
//! `cargo run --release -p spark-tests --example detection_ops_speed -- --threads 2`
//!
//! Calls of both alternate, one process each, so that a busy machine slows both;
//! medians are compared. Ours gets the map as the pyramid leaves it, channels last
//! in memory, and, for scale, as torchvision gets it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use data::rng::Rng;
use detection::ops;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

#[derive(Parser)]
struct Arguments {
    /// Threads of libtorch.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Timed calls of each, after one to warm up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// A call that both sides make.
struct Load {
    name: String,
    what: String,
    call: Value,
    operands: Vec<(&'static str, Tensor)>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.rounds > 0 && arguments.threads > 0, "--rounds, --threads: at least 1");
    tch::set_num_threads(arguments.threads);
    let loads = loads();
    let folder = tempfile::tempdir()?;
    let operands = folder.path().join("operands.safetensors");
    let named = |load: &Load| {
        let name = &load.name;
        let named = |(key, tensor): &(&str, Tensor)| (format!("{name}.{key}"), tensor.contiguous());
        load.operands.iter().map(named).collect::<Vec<_>>()
    };
    Tensor::write_safetensors(&loads.iter().flat_map(named).collect::<Vec<_>>(), &operands)?;
    let mut torchvision = Torchvision::start(&operands, arguments.threads)?;

    println!("{} threads, medians of {} calls, in ms", arguments.threads, arguments.rounds);
    println!("{:62} {:>8} {:>11} {:>6}", "", "ours", "torchvision", "ratio");
    for load in &loads {
        let runs = load.runs();
        let mut ours = vec![Vec::new(); runs.len()];
        let mut theirs = Vec::new();
        for round in 0..=arguments.rounds {
            let reference = torchvision.time(&load.call)?;
            for ((_, run), times) in runs.iter().zip(&mut ours) {
                let start = Instant::now();
                run();
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64());
                }
            }
            if round > 0 {
                theirs.push(reference);
            }
        }
        let reference = median(&mut theirs) * 1e3;
        for ((variant, _), times) in runs.iter().zip(&mut ours) {
            let time = median(times) * 1e3;
            let what = format!("{}{variant}", load.what);
            println!("{what:62} {time:8.2} {reference:11.2} {:6.3}", time / reference);
        }
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What a step on one 640 × 480 image calls.
fn loads() -> Vec<Load> {
    let mut rng = Rng::new(1, &[]);
    let mut loads = Vec::new();
    for (name, regions, output, ratio, aligned) in [
        ("box", 512, 7, 0, true),
        ("mask", 100, 14, 0, true),
        ("box_torchvision", 512, 7, 2, false),
        ("mask_torchvision", 100, 14, 2, false),
    ] {
        for backward in [false, true] {
            let features = Tensor::randn([1, 256, 120, 160], (Kind::Float, Device::Cpu));
            let boxes = boxes(regions, (16.0, 112.0), &mut rng);
            let image = Tensor::zeros([regions, 1], (Kind::Float, Device::Cpu));
            let upstream =
                Tensor::randn([regions, 256, output, output], (Kind::Float, Device::Cpu));
            let pass = if backward { "forward and backward" } else { "forward" };
            let name = format!("{name}_{}", if backward { "backward" } else { "forward" });
            loads.push(Load {
                name: name.clone(),
                what: format!("RoIAlign {regions} × {output}², sampling {ratio}, {pass}"),
                call: json!({"operator": "roi_align", "name": name, "output": output,
                             "ratio": ratio, "aligned": aligned, "backward": backward}),
                operands: vec![
                    ("features", features),
                    ("rois", Tensor::cat(&[image, boxes], 1)),
                    ("upstream", upstream),
                ],
            });
        }
    }
    for (name, count, batched) in
        [("nms2000", 2000, false), ("nms20000", 20_000, false), ("batched5000", 5000, true)]
    {
        let options = (Kind::Float, Device::Cpu);
        let kind = if batched { "batched NMS, 80 classes" } else { "NMS" };
        loads.push(Load {
            name: name.to_owned(),
            what: format!("{kind}, {count} boxes"),
            call: json!({"operator": "nms", "name": name, "threshold": 0.7, "batched": batched}),
            operands: vec![
                ("boxes", boxes(count, (16.0, 300.0), &mut rng)),
                ("scores", Tensor::rand([count], options)),
                ("classes", Tensor::randint(80, [count], (Kind::Int64, Device::Cpu))),
            ],
        });
    }
    loads
}

/// Boxes in a 640 × 480 image, their sides between the two (evenly in log scale).
fn boxes(count: i64, (shortest, longest): (f64, f64), rng: &mut Rng) -> Tensor {
    let mut rows = Vec::new();
    for _ in 0..count {
        let (x, y) = (rng.uniform() * 640.0, rng.uniform() * 480.0);
        let mut half = || shortest * (longest / shortest).powf(rng.uniform()) / 2.0;
        let (w, h) = (half(), half());
        let corners = [(x - w).max(0.0), (y - h).max(0.0), (x + w).min(640.0), (y + h).min(480.0)];
        rows.extend(corners.map(|side| side as f32));
    }
    Tensor::from_slice(&rows).view([-1, 4])
}

type Run<'a> = (&'static str, Box<dyn Fn() + 'a>);

impl Load {
    fn operand(&self, name: &str) -> &Tensor {
        let found = self.operands.iter().find(|(key, _)| *key == name);
        &found.unwrap_or_else(|| panic!("no {name} in {}", self.name)).1
    }

    /// Our calls, in each layout.
    fn runs(&self) -> Vec<Run<'_>> {
        if self.call["operator"] == "roi_align" {
            return vec![(", channels last", self.roi_align(true)), ("", self.roi_align(false))];
        }
        let threshold = self.call["threshold"].as_f64().unwrap_or(0.5);
        let batched = self.call["batched"] == true;
        let [boxes, scores, classes] =
            ["boxes", "scores", "classes"].map(|name| self.operand(name));
        let run = move || {
            if batched {
                let _ = ops::batched_nms(boxes, scores, classes, threshold);
            } else {
                let _ = ops::nms(boxes, scores, threshold);
            }
        };
        vec![("", Box::new(run))]
    }

    fn roi_align(&self, channels_last: bool) -> Box<dyn Fn() + '_> {
        let lay_out = |tensor: &Tensor| match channels_last {
            true => tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
            false => tensor.copy(),
        };
        let backward = self.call["backward"] == true;
        let features = lay_out(self.operand("features")).set_requires_grad(backward);
        let upstream = lay_out(self.operand("upstream"));
        let output = self.call["output"].as_i64().unwrap_or(7);
        let ratio = self.call["ratio"].as_i64().unwrap_or(0);
        let aligned = self.call["aligned"] == true;
        let rois = self.operand("rois");
        Box::new(move || {
            let pooled = ops::roi_align(&features, rois, (output, output), 0.25, ratio, aligned);
            if backward {
                // libtorch's binding starts from a scalar: ours pays for one product
                // and sum more.
                let inputs = [&features];
                Tensor::run_backward(
                    &[(pooled * &upstream).sum(Kind::Float)],
                    &inputs,
                    false,
                    false,
                );
            }
        })
    }
}

/// The other process.
struct Torchvision {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Torchvision {
    fn start(operands: &Path, threads: i32) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/detection_ops_speed.py");
        let mut child = Command::new(spark_tests::python())
            .arg(script)
            .arg(operands)
            .arg(threads.to_string())
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting Python: run `cargo xtask setup`")?;
        let calls = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, calls, answers })
    }

    /// Seconds of one call.
    fn time(&mut self, call: &Value) -> anyhow::Result<f64> {
        writeln!(self.calls, "{call}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer.trim().parse().with_context(|| format!("torchvision failed on {call}"))
    }
}

impl Drop for Torchvision {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
