//! From the start of a pretraining process to the end of its first step, ours
//! or theirs: each round is a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Subject;
use crate::memory::peak_of;
use crate::protocol::{Ready, Round, serve};

/// Time between two looks for the first step.
const LOOK: Duration = Duration::from_millis(2);
/// A process that has made no step by then hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which starts.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Images of a step
    #[arg(long)]
    batch: usize,
    /// Side of the crops in pixels
    #[arg(long)]
    size: usize,
    /// Keep the listing of the data from start to start
    #[arg(long)]
    warm: bool,
    /// Start this Python script instead of `pretrain`
    #[arg(long, value_name = "FILE", requires = "python")]
    script: Option<PathBuf>,
    /// With this Python
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Serves starts until the input ends.
///
/// # Errors
/// The process ends before its first step.
pub fn run(arguments: &Arguments) -> Result<()> {
    // The run, and what is kept from start to start.
    let folder =
        arguments.subject.common.inputs.with_added_extension(std::process::id().to_string());
    let served = serve(Ready::default(), || match (&arguments.script, &arguments.python) {
        (Some(script), Some(python)) => theirs(arguments, python, script),
        _ => ours(arguments, &folder),
    });
    let _ = fs::remove_dir_all(&folder);
    served
}

/// `pretrain train`, which lies beside this program.
fn ours(arguments: &Arguments, folder: &Path) -> Result<Round> {
    let Arguments { subject: Subject { common, model }, batch, size, warm, .. } = arguments;
    let (run, cache) = (folder.join("run"), folder.join("cache"));
    let _ = fs::remove_dir_all(&run);
    if !warm {
        let _ = fs::remove_dir_all(&cache);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let program = std::env::current_exe()?.with_file_name("pretrain");
    ensure!(program.is_file(), "{} is not there: `cargo xtask bench` builds it", program.display());
    let threads = common.threads.to_string();
    let mut command = Command::new(program);
    command.arg("train").arg("--data").arg(&common.inputs).arg("--output").arg(&run);
    command.args(["--preset", "paper", "--model", model, "--batch-size", &batch.to_string()]);
    command.args(["--input-size", &size.to_string(), "--threads", &threads]);
    command.args(["--workers", &threads, "--device", "cpu"]);
    command.args(["--epochs", "1", "--warmup-epochs", "0", "--log-steps", "1"]);
    // Where listings are kept.
    command.env("XDG_CACHE_HOME", &cache);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log"))?);

    let start = Instant::now();
    let mut child = Killed(command.spawn()?);
    let metrics = run.join("metrics.jsonl");
    while !has_a_line(&metrics) {
        if let Some(status) = child.0.try_wait()? {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            bail!("pretrain ended before its first step ({status}): {log}");
        }
        ensure!(start.elapsed() < PATIENCE, "pretrain made no step in {PATIENCE:?}");
        sleep(LOOK);
    }
    let seconds = start.elapsed().as_secs_f64();
    let peak_mb = peak_of(child.0.id())?;
    drop(child);
    Ok(Round { seconds, work: 1.0, peak_mb })
}

fn has_a_line(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.contains(&b'\n'))
}

/// The script, which tells its peak memory after the first step.
fn theirs(arguments: &Arguments, python: &Path, script: &Path) -> Result<Round> {
    let Arguments { subject: Subject { common, model }, batch, size, .. } = arguments;
    let mut command = Command::new(python);
    command.arg(script).arg("--inputs").arg(&common.inputs);
    command.args(["--model", model, "--batch", &batch.to_string()]);
    command.args(["--size", &size.to_string(), "--threads", &common.threads.to_string()]);
    // A group of its own, which it ends as a whole.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = Killed(command.spawn()?);
    let output = child.0.stdout.take().context("a script without output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let seconds = start.elapsed().as_secs_f64();
    let peak_mb = line.trim().parse();
    let peak_mb = peak_mb.with_context(|| format!("{} said {line:?}", script.display()))?;
    drop(child.0.stdin.take());
    child.0.wait()?;
    Ok(Round { seconds, work: 1.0, peak_mb })
}

/// A process that does not outlive this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
