//! What the bridge costs: the forward of one model called from Rust, from C++
//! and from Python, in turns, each in a process of its own.
//!
//! ```text
//! cargo run --release -p spark-ffi --example bridge_overhead
//! cargo run --release -p spark-ffi --example bridge_overhead -- convnext_tiny 30
//! ```
//!
//! The Python is the one in SPARK_PYTHON, or `python3`; it needs torch.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use backbone::models::{self, BuildOptions};
use backbone::{FeatureMap, Mode};
use tch::{Device, Kind, Tensor, nn};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Forwards of a turn. Short turns, since many of them tell a difference of a hundredth where the
/// machine's speed drifts by ten.
#[derive(Clone, Copy)]
struct Turn {
    batch: i64,
    pixels: i64,
    forwards: usize,
}

/// The last hardly computes: what its fastest forwards differ by is the cost of a call.
const TURNS: [Turn; 3] = [
    Turn { batch: 1, pixels: 224, forwards: 5 },
    Turn { batch: 8, pixels: 224, forwards: 1 },
    Turn { batch: 1, pixels: 32, forwards: 20 },
];

/// glibc's allocator gives the top of its heap back to the system, or not, as the heap of a
/// process happens to lie: 15 % of a forward, in any of the three. Each host therefore keeps
/// what it has.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "4000000000"), ("MALLOC_MMAP_THRESHOLD_", "4000000000")];
/// Argument that makes this program the host that calls from Rust.
const RUST: &str = "--rust-host";

/// Answers standard input's questions as the other hosts do.
fn rust_host(model: &str) -> Result<()> {
    let store = nn::VarStore::new(Device::Cpu);
    let network = models::find(model)?.build(&store.root(), &BuildOptions::default())?;
    let _no_grad = tch::no_grad_guard();
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut numbers = line.split(' ').map(str::parse);
        let mut next = || numbers.next().ok_or("three numbers are wanted");
        let (batch, pixels, rounds): (i64, i64, i64) = (next()??, next()??, next()??);
        let images = Tensor::ones([batch, 3, pixels, pixels], (Kind::Float, Device::Cpu));
        let images = FeatureMap::Grid(images);
        let start = Instant::now();
        for _ in 0..rounds {
            network.forward(&images, &Mode::eval())?;
        }
        println!("{}", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// A program that is asked through its standard input.
struct Host {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Host {
    fn start(command: &mut Command) -> Result<Self> {
        command.envs(ALLOCATOR);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let asks = child.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, asks, answers })
    }

    /// Runs forwards and says how long they took, in seconds.
    fn forwards(&mut self, turn: Turn) -> Result<f64> {
        writeln!(self.asks, "{} {} {}", turn.batch, turn.pixels, turn.forwards)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse().map_err(|_| format!("the program answered {line:?}"))?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "resnet50".into());
    if model == RUST {
        return rust_host(&arguments.next().ok_or("a model is wanted")?);
    }
    let rounds: usize = arguments.next().map_or(Ok(150), |count| count.parse())?;
    let folder = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let library = program
        .parent()
        .and_then(Path::parent)
        .map(|target| target.join("libspark_backbone.so"))
        .filter(|library| library.exists())
        .ok_or("libspark_backbone.so is not beside this program: run it with cargo")?;

    let mut sides = [
        ("Rust", Host::start(Command::new(&program).args([RUST, &model]))?),
        ("C++", cpp(folder.path(), &library, &model)?),
        ("Python", python(folder.path(), &library, &model)?),
    ];
    println!("{model}, {} threads, {rounds} rounds in turns", tch::get_num_threads());
    println!("batch  pixels    host   median ms  fastest ms     to Rust");
    for turn in TURNS {
        let times = measure(&mut sides, turn, rounds)?;
        for (side, (name, _)) in sides.iter().enumerate() {
            // Of each round's ratio, since the machine's speed drifts.
            let ratios = times.iter().map(|round| round[side] / round[0]);
            let own: Vec<f64> =
                times.iter().map(|round| round[side] * 1e3 / turn.forwards as f64).collect();
            let fastest = own.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "{:<7}{:>6}{name:>8}{:>12.2}{fastest:>12.2}{:>12.3}",
                turn.batch,
                turn.pixels,
                median(own),
                median(ratios.collect())
            );
        }
    }
    Ok(())
}

/// Seconds by round and side.
fn measure(sides: &mut [(&str, Host)], turn: Turn, rounds: usize) -> Result<Vec<Vec<f64>>> {
    // The first forwards choose kernels and fill caches.
    for (_, side) in sides.iter_mut() {
        side.forwards(turn)?;
    }
    let mut times = Vec::new();
    for round in 0..rounds {
        let mut seconds = vec![0.0; sides.len()];
        // Each goes first as often as the others.
        for place in 0..sides.len() {
            let side = (round + place) % sides.len();
            seconds[side] = sides[side].1.forwards(turn)?;
        }
        times.push(seconds);
    }
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The C++ host, compiled.
fn cpp(folder: &Path, library: &Path, model: &str) -> Result<Host> {
    let (include, lib) = (env!("SPARK_LIBTORCH_INCLUDE"), env!("SPARK_LIBTORCH_LIB"));
    let program = folder.join("host");
    let status = Command::new("c++")
        .args(["-std=c++17", "-O2", "-I"])
        .arg(here("include"))
        .args(["-isystem", include, "-isystem", &format!("{include}/torch/csrc/api/include")])
        .arg(here("examples/bridge_overhead/host.cpp"))
        .arg(library)
        .args(["-L", lib, "-ltorch", "-ltorch_cpu", "-lc10", &format!("-Wl,-rpath,{lib}")])
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap_or(folder).display()))
        .arg("-o")
        .arg(&program)
        .status()?;
    if !status.success() {
        return Err("c++ failed".into());
    }
    Host::start(Command::new(program).arg(model))
}

/// The Python host, with the package laid out as its wheel does.
fn python(folder: &Path, library: &Path, model: &str) -> Result<Host> {
    let package = folder.join("spark_backbone");
    std::fs::create_dir(&package)?;
    for entry in std::fs::read_dir(here("python/spark_backbone"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), package.join(entry.file_name()))?;
        }
    }
    std::fs::copy(library, package.join("libspark_backbone.so"))?;
    let python = std::env::var_os("SPARK_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(here("examples/bridge_overhead/host.py")).arg(folder).arg(model);
    Host::start(&mut command)
}
