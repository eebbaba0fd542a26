//! A folder to work in, processes that have ended, and what a run has left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use engine::checkpoint::CheckpointFile;
use serde_json::Value;
use tch::Tensor;

use super::promises::words;

/// A network of 25,000 parameters, which `tests/python/graph_networks.py fixture` writes: what the
/// programs' tests train where it does not matter which, since the checkpoints of a ResNet take
/// most of a short run's time.
pub const TINY: &str = "tiny.pt2";

/// A folder with data and runs of one program, deleted at the end.
pub struct Workplace {
    folder: tempfile::TempDir,
    program: &'static str,
    /// What every training begins with, separated by spaces.
    training: &'static str,
}

impl Workplace {
    /// A folder with nothing in it but `tiny.pt2`.
    pub fn of(program: &'static str, training: &'static str) -> Self {
        let work = Self { folder: tempfile::tempdir().unwrap(), program, training };
        std::fs::write(work.path(TINY), include_bytes!("../fixtures/tiny.pt2")).unwrap();
        work
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().unwrap())
    }

    /// Arguments of a training of seconds.
    pub fn train_arguments<'a>(&self, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["train", "--output", output];
        arguments.extend(words(self.training));
        arguments.extend(more);
        arguments
    }

    pub fn train(&self, output: &str, more: &[&str]) -> Finished {
        self.run(&self.train_arguments(output, more))
    }

    /// Starts a training without waiting for it.
    pub fn start(&self, output: &str, more: &[&str]) -> Child {
        self.command(&self.train_arguments(output, more))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Trains with SIGKILL after each of `steps`, and continues; the last time by the run's own
    /// settings, past a torn line in its metrics.
    pub fn train_killed_after(&self, output: &str, steps: &[u64], settings: &[&str]) -> Finished {
        let mut more = settings.to_vec();
        for &step in steps {
            let mut child = self.start(output, &more);
            wait_for_step(&self.path(output), step);
            child.kill().unwrap();
            child.wait().unwrap();
            if !more.contains(&"--resume") {
                more.push("--resume");
            }
        }
        let metrics = self.path(output).join("metrics.jsonl");
        std::fs::write(&metrics, [read(&metrics), b"{\"step\":10,\"lo".to_vec()].concat()).unwrap();
        let finished = self.run(&["train", "--output", output, "--resume"]).succeeded();
        assert!(finished.err.contains("resuming after step"), "{}", finished.err);
        finished
    }

    /// The finished run `output`, which has a best checkpoint, loses its last one: it is named what
    /// there is to go on from, and nothing is changed.
    pub fn loses_its_last_checkpoint(&self, output: &str) {
        let at = |name: &str| self.path(&format!("{output}/{name}"));
        let checkpoint = |name: &str| at(&format!("checkpoints/{name}.safetensors"));
        let kept = || [read(at("metrics.jsonl")), read(checkpoint("best"))];
        let resume = || self.run(&["train", "--output", output, "--resume"]);
        let (before, whole) = (kept(), read(checkpoint("last")));
        let command = format!("--resume {output}/checkpoints/best");
        let ways = ["best.safetensors (step ", "go on from one of them"];

        // Not in place: it may be the best one by another name.
        std::fs::remove_file(checkpoint("last")).unwrap();
        std::fs::write(checkpoint("last"), &whole[..whole.len() / 2]).unwrap();
        resume().refused(&[&["last.safetensors: cut off"][..], &ways].concat());
        std::fs::remove_file(checkpoint("last")).unwrap();
        let refused = resume().refused(&[&["last.safetensors is gone"][..], &ways].concat());
        let err = refused.err.replace(&format!("{}/", self.folder.path().display()), "");
        assert!(err.contains(&command), "{err}");
        assert_eq!(kept(), before, "nothing is changed");

        // As the message says.
        std::fs::copy(checkpoint("best"), checkpoint("last")).unwrap();
        let went_on = resume().succeeded();
        assert!(went_on.err.contains("resuming after step"), "{}", went_on.err);

        let metrics = read(at("metrics.jsonl"));
        std::fs::remove_dir_all(at("checkpoints")).unwrap();
        resume().refused(&["last.safetensors is gone; no other whole checkpoint", "--overwrite"]);
        assert_eq!(read(at("metrics.jsonl")), metrics);
    }

    /// Trains until `step` is recorded, then asks the run to end.
    pub fn train_terminated(&self, output: &str, step: u64, more: &[&str]) -> Finished {
        let child = self.start(output, more);
        wait_for_step(&self.path(output), step);
        terminate(&child);
        Finished::from(child.wait_with_output().unwrap())
    }

    /// Trains a run of a single step, and asks it to end while that is being made. One that was
    /// over too soon is begun again.
    pub fn train_terminated_in_its_only_step(&self, output: &str, more: &[&str]) -> Finished {
        let metrics = self.path(output).join("metrics.jsonl");
        for _ in 0..5 {
            let child = self.start(output, more);
            // It is there before the step begins, and has a line once it is over.
            wait_until(|| metrics.exists());
            terminate(&child);
            let in_time = read(&metrics).is_empty();
            let finished = Finished::from(child.wait_with_output().unwrap());
            if in_time {
                assert_says(&finished.err, &["interrupted: finishing this step"]);
                return finished;
            }
            std::fs::remove_dir_all(self.path(output)).unwrap();
        }
        panic!("the step was over each time before the run was asked to end");
    }

    /// Each of these flags keeps a training from beginning, with a message that has this part.
    pub fn refuses_to_train(&self, flags: &[(&str, &str)]) {
        for (flags, message) in flags {
            self.train("run", &words(flags)).refused(&[message]);
            let left = self.path("run/checkpoints/last.safetensors");
            assert!(!left.exists(), "{flags:?} began a run");
            let _ = std::fs::remove_dir_all(self.path("run"));
        }
    }

    /// The program `name` has so many commands, each with examples of its use in its help.
    pub fn explains_its_commands(&self, name: &str, count: usize) {
        let help = self.run(&["--help"]).succeeded().out;
        let commands: Vec<&str> = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|command| *command != "help")
            .collect();
        assert_eq!(commands.len(), count, "{help}");
        for command in commands {
            let help = self.run(&[command, "--help"]).succeeded().out;
            assert_says(&help, &["Example", &format!("  {name} {command}")]);
        }
    }

    /// Step and numbers of these names of every record of a run, in order.
    pub fn numbers<const N: usize>(
        &self,
        run: &str,
        names: [&str; N],
    ) -> Vec<(u64, [Option<f64>; N])> {
        let numbers = |record: Value| {
            let step = record["step"].as_u64().expect("every record has a step");
            (step, names.map(|name| record[name].as_f64()))
        };
        records(&self.path(run)).into_iter().map(numbers).collect()
    }

    /// What a JSON file holds.
    #[track_caller]
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&read(self.path(name))).unwrap()
    }

    /// The last checkpoint of a run.
    pub fn checkpoint(&self, run: &str) -> CheckpointFile {
        CheckpointFile::open(&self.path(run).join("checkpoints/last.safetensors")).unwrap()
    }

    /// Every tensor's bytes of a run's last checkpoint, and those of its file `export`.
    pub fn bits(&self, run: &str, export: &str) -> BTreeMap<String, Vec<u8>> {
        let checkpoint = self.checkpoint(run);
        let mut bits = BTreeMap::new();
        for section in checkpoint.sections() {
            for (name, tensor) in checkpoint.section(section).unwrap() {
                bits.insert(format!("{section}.{name}"), bytes(&tensor));
            }
        }
        bits.insert("export".into(), read(self.path(run).join(export)));
        bits
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.contiguous().view([-1]).copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

#[track_caller]
pub fn assert_same_bits(left: &BTreeMap<String, Vec<u8>>, right: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (name, bytes) in left {
        assert!(*bytes == right[name], "{name} differs");
    }
}

/// A process that has ended.
pub struct Finished {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Finished {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.ok, "{}\n{}", self.out, self.err);
        self
    }

    /// The run failed without a panic and said all of `parts`.
    #[track_caller]
    pub fn refused(self, parts: &[&str]) -> Self {
        assert!(!self.ok, "it was not refused:\n{}\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        assert_says(&self.err, parts);
        self
    }
}

#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[track_caller]
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// JSON with another byte at a place, or cut there. Places go round.
pub fn damaged(json: &Value, at: usize, byte: Option<u8>) -> Vec<u8> {
    let mut bytes = json.to_string().into_bytes();
    let at = at % bytes.len();
    match byte {
        Some(byte) => bytes[at] = byte,
        None => bytes.truncate(at),
    }
    bytes
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The lines of a run's `metrics.jsonl`.
pub fn records(run: &Path) -> Vec<Value> {
    let text = String::from_utf8(read(run.join("metrics.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the run has recorded `step`.
pub fn wait_for_step(run: &Path, step: u64) {
    let wanted = format!("\"step\":{step},");
    wait_until(|| {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        text.contains(&wanted)
    });
}

/// Waits at most five minutes until `there` says so.
#[track_caller]
pub fn wait_until(there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !there() {
        assert!(Instant::now() < deadline, "it never came to it");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks a process to end.
fn terminate(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}
