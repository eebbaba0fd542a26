//! The programs that train, beside this one, and how one of them is watched.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use engine::run_dir::{LAST_CHECKPOINT, display_path};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toml::Table;

/// Between two looks at a program.
const LOOK: Duration = Duration::from_millis(100);
/// Of a run's metrics, read at every look: a few records.
const TAIL: u64 = 8192;
/// The numbers of a run, in its folder.
pub const METRICS: &str = "metrics.jsonl";
/// Of a log that a failure shows.
const LOG_LINES: usize = 6;

/// A program beside this one.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

/// What a training is to do; the flags of [`Program::train`].
#[derive(Debug, Clone)]
pub struct Training {
    /// Its folder.
    pub run: PathBuf,
    /// Flags besides where it begins and ends.
    pub flags: Vec<OsString>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It did all it had to.
    Done,
    /// It was told to stop.
    Stopped,
}

impl Program {
    /// `name`, which lies where this program does.
    ///
    /// # Errors
    /// It does not.
    pub fn beside(name: &str) -> Result<Self> {
        let own = std::env::current_exe().context("where does this program lie?")?;
        let path = own.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        ensure!(
            path.is_file(),
            "{} is not there, and does the fine-tuning: put {name} beside {}; in a checkout \
             `cargo build --release --workspace --bins` makes both",
            display_path(&path),
            own.file_name().unwrap_or_default().display(),
        );
        Ok(Self { path })
    }

    /// The settings that `flags` make.
    ///
    /// # Errors
    /// What the program says of them.
    pub fn settings(&self, flags: &[OsString]) -> Result<Table> {
        let mut command = Command::new(&self.path);
        command.arg("train").args(flags).arg("--dump-config").stdin(Stdio::null());
        let output = command.output().with_context(|| self.cannot_start())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let name = self.path.file_name().unwrap_or_default().display();
        ensure!(output.status.success(), "{name} refuses these flags: {}", said.trim());
        let text = String::from_utf8_lossy(&output.stdout);
        text.parse().with_context(|| format!("{name} printed no settings: {text}"))
    }

    /// Begins the training, or goes on with it if it has a checkpoint.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn train(&self, training: &Training) -> Result<Watched> {
        let Training { run, flags } = training;
        let log_path = log_of(run);
        if let Some(folder) = run.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", display_path(folder)))?;
        }
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.with_context(|| format!("cannot write {}", display_path(&log_path)))?;
        let mut command = Command::new(&self.path);
        command.arg("train").args(flags).arg("--output").arg(run);
        let begun = run.join(LAST_CHECKPOINT).exists();
        command.arg(if begun { "--resume" } else { "--overwrite" });
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C reaches this program alone, which then ends the other in order, once.
        command.process_group(0);
        let child = command.spawn().with_context(|| self.cannot_start())?;
        Ok(Watched { child, run: run.clone(), started: Instant::now(), told_to_stop: false })
    }

    fn cannot_start(&self) -> String {
        format!("cannot start {}", display_path(&self.path))
    }
}

/// The file that a run's program writes its words to.
pub fn log_of(run: &Path) -> PathBuf {
    let mut name = run.file_name().unwrap_or_default().to_owned();
    name.push(".log");
    run.with_file_name(name)
}

/// A program that trains.
pub struct Watched {
    child: Child,
    run: PathBuf,
    started: Instant,
    told_to_stop: bool,
}

impl Watched {
    /// Waits for the end; `look` is called every now and then with the steps made and may say that
    /// it is enough. An interrupt ends the program in order.
    ///
    /// # Errors
    /// The program fails; the end of its words says why.
    pub fn wait(
        mut self,
        interrupted: &Arc<AtomicBool>,
        mut look: impl FnMut(u64, Duration) -> bool,
    ) -> Result<Ended> {
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for a program")? {
                break status;
            }
            let enough = look(self.steps(), self.started.elapsed());
            if (enough || interrupted.load(Ordering::Relaxed)) && !self.told_to_stop {
                self.told_to_stop = true;
                self.stop();
            }
            std::thread::sleep(LOOK);
        };
        look(self.steps(), self.started.elapsed());
        match (status.success(), self.told_to_stop) {
            (true, _) => Ok(Ended::Done),
            (false, true) => Ok(Ended::Stopped),
            (false, false) => {
                let log = log_of(&self.run);
                bail!(
                    "the run {} failed ({status}); the end of {}:\n{}",
                    display_path(&self.run),
                    display_path(&log),
                    last_lines(&log)
                )
            }
        }
    }

    /// Steps that the end of the run's metrics tells of.
    fn steps(&self) -> u64 {
        let tail = tail(&self.run.join(METRICS)).unwrap_or_default();
        let last = tail.lines().rev().find_map(|line| {
            serde_json::from_str::<Value>(line).ok().and_then(|record| record["step"].as_u64())
        });
        last.unwrap_or(0)
    }

    /// Lets it finish its step and save.
    fn stop(&self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        // One that has ended meanwhile needs no word.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// A run whose program is dropped before its end, as after an error, ends in order.
impl Drop for Watched {
    fn drop(&mut self) {
        if !self.told_to_stop && matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// The end of a file, without a line that begins before it.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_lines(log: &Path) -> String {
    let text = tail(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
