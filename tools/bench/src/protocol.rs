//! How the orchestrator and a worker process talk: lines of JSON on the
//! worker's standard streams.
//!
//! The worker sets up and prints `{"ready": {"checks": {…}, "operations": n}}`; for every line
//! `go` that it reads it does a round and prints
//! `{"seconds": s, "work": n, "peak_mb": m}`; at the end of its input it exits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// What a worker tells once it could start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Results by name, which the other side must have too.
    pub checks: BTreeMap<String, Vec<f64>>,
    /// Operations that a unit of work needs, if it is arithmetic and this worker counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<f64>,
}

impl Ready {
    /// With one more result.
    pub fn with(mut self, name: &str, values: Vec<f64>) -> Self {
        self.checks.insert(name.to_owned(), values);
        self
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct ReadyLine {
    ready: Ready,
}

/// What a round took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Wall-clock time.
    pub seconds: f64,
    /// How much was done, in the duel's unit.
    pub work: f64,
    /// Most memory so far, in megabytes, beyond program and libraries.
    pub peak_mb: f64,
}

impl Round {
    /// Seconds of a unit of work.
    pub fn seconds_per_work(&self) -> f64 {
        self.seconds / self.work
    }
}

/// A worker's main loop: tells `ready`, then does a `round` whenever told to.
///
/// # Errors
/// What `round` fails with, or a line other than `go`.
pub fn serve(ready: Ready, mut round: impl FnMut() -> Result<Round>) -> Result<()> {
    tell(&ReadyLine { ready })?;
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "go" => tell(&round()?)?,
            other => bail!("a worker is told {other:?}, but it only knows \"go\""),
        }
    }
    Ok(())
}

fn tell(message: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(message)?)?;
    out.flush()?;
    Ok(())
}

/// A worker process, seen from the orchestrator. It is killed when dropped.
#[derive(Debug)]
pub struct Worker {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    /// The lines it says.
    output: Receiver<std::io::Result<String>>,
    /// How long it may be silent.
    patience: Duration,
    /// Its standard error.
    log: PathBuf,
}

/// How long a worker may take to be ready, or for a round: many times what the
/// slowest takes.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How long a worker may take to tidy up and exit.
const TIME_TO_EXIT: Duration = Duration::from_secs(3);
/// Lines of a failed worker's standard error that are shown.
const SHOWN_LINES: usize = 12;

impl Worker {
    /// Starts `command`, which error messages call `name` and whose standard
    /// error goes to the file `log`.
    ///
    /// # Errors
    /// It cannot be started, or `log` not be written.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| {
            format!("cannot start {name}: {}", command.get_program().display())
        })?;
        let input = child.stdin.take();
        let output = lines_of(child.stdout.take().context("a worker without output")?);
        let (name, log) = (name.to_owned(), log.to_owned());
        Ok(Self { name, child, input, output, patience: PATIENCE, log })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ends before, or says something else.
    pub fn ready(&mut self) -> Result<Ready> {
        Ok(self.read::<ReadyLine>()?.ready)
    }

    /// Has it do a round.
    ///
    /// # Errors
    /// It ends before it is done, says something else, or took no time or did
    /// no work, which no round does.
    pub fn round(&mut self) -> Result<Round> {
        // A worker that is gone cannot be told; reading finds out why.
        let _ = self.input.as_mut().context("a worker without input")?.write_all(b"go\n");
        let round: Round = self.read()?;
        if !(round.seconds > 0.0 && round.seconds.is_finite() && round.work > 0.0) {
            bail!(
                "{} took {} seconds for {} units of work, but both must be positive",
                self.name,
                round.seconds,
                round.work
            );
        }
        Ok(round)
    }

    fn read<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        let line = match self.output.recv_timeout(self.patience) {
            Ok(line) => line.with_context(|| format!("reading from {}", self.name))?,
            Err(RecvTimeoutError::Timeout) => bail!(
                "{} said nothing for {} seconds{}",
                self.name,
                self.patience.as_secs(),
                self.last_words()
            ),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("{} ended ({status}){}", self.name, self.last_words());
            }
        };
        serde_json::from_str(&line)
            .with_context(|| format!("{} said {:?}", self.name, line.trim_end()))
    }

    /// The end of what it wrote to standard error.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        match shown {
            [] => String::new(),
            shown => format!(":\n{}", shown.join("\n")),
        }
    }
}

/// The lines that `output` says, until it ends. Read by a thread, as a pipe cannot
/// be waited for with patience.
fn lines_of(output: ChildStdout) -> Receiver<std::io::Result<String>> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens once the worker is dropped.
        BufReader::new(output).lines().try_for_each(|line| sender.send(line))
    });
    lines
}

impl Drop for Worker {
    /// Closes its input, at whose end it exits by itself; kills it in case it
    /// is in the middle of something.
    fn drop(&mut self) {
        drop(self.input.take());
        let asked = Instant::now();
        while asked.elapsed() < TIME_TO_EXIT && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that runs this shell script.
    fn worker(script: &str) -> (Worker, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Worker::start("a script", command, &folder.path().join("log")).unwrap(), folder)
    }

    #[test]
    fn a_worker_does_a_round_for_every_go() {
        let (mut worker, _folder) = worker(
            "echo '{\"ready\": {\"checks\": {\"loss\": [1.5]}}}'\n\
             while read word; do n=$((n + 1))\n\
             echo \"{\\\"seconds\\\": $n, \\\"work\\\": 2, \\\"peak_mb\\\": 7}\"; done",
        );
        assert_eq!(worker.ready().unwrap(), Ready::default().with("loss", vec![1.5]));
        assert_eq!(worker.round().unwrap(), Round { seconds: 1.0, work: 2.0, peak_mb: 7.0 });
        assert_eq!(worker.round().unwrap().seconds_per_work(), 1.0);
    }

    #[test]
    fn what_a_failed_worker_said_is_shown() {
        let (mut worker, _folder) = worker("echo no such model >&2; exit 3");
        let error = worker.ready().unwrap_err().to_string();
        assert!(error.starts_with("a script ended (exit status: 3)"), "{error}");
        assert!(error.ends_with("no such model"), "{error}");
    }

    #[test]
    fn a_worker_that_is_stuck_is_given_up() {
        let (mut worker, _folder) = worker("echo waiting for a lock >&2; exec sleep 60");
        worker.patience = Duration::from_millis(300);
        let error = worker.ready().unwrap_err().to_string();
        assert!(error.starts_with("a script said nothing for 0 seconds"), "{error}");
        assert!(error.ends_with("waiting for a lock"), "{error}");
    }

    #[test]
    fn a_round_that_cannot_be_is_refused() {
        let (mut worker, _folder) =
            worker("read word; echo '{\"seconds\": 0, \"work\": 1, \"peak_mb\": 1}'; read word");
        let error = worker.round().unwrap_err().to_string();
        assert_eq!(error, "a script took 0 seconds for 1 units of work, but both must be positive");
    }

    #[test]
    fn something_else_than_json_is_quoted() {
        let (mut worker, _folder) = worker("echo Downloading...");
        let error = format!("{:#}", worker.ready().unwrap_err());
        assert!(error.starts_with("a script said \"Downloading...\""), "{error}");
    }
}
