//! Runs in object storage, on several machines: each has a cache folder of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use test_objects::Objects;

use super::program::{Finished, Workplace, names, read, wait_until};

/// The run that these tests train.
pub const RUN: &str = "s3://bucket/runs/first";
/// Its objects' names begin so.
const PREFIX: &str = "runs/first/";

/// A workplace, and the store that its programs find.
pub struct Stored<'a> {
    pub work: &'a Workplace,
    pub objects: Objects,
}

impl<'a> Stored<'a> {
    /// A store with the empty bucket `bucket`.
    pub fn new(work: &'a Workplace) -> Self {
        Self { work, objects: Objects::start() }
    }

    /// `command` as on the machine of this name, which is made.
    pub fn on(&self, machine: &str, mut command: Command) -> Command {
        let cache = self.work.path(machine);
        std::fs::create_dir_all(&cache).unwrap();
        self.objects.show_to(&mut command).env("XDG_CACHE_HOME", cache);
        command
    }

    /// Runs the program on a machine to its end.
    pub fn run(&self, machine: &str, arguments: &[&str]) -> Finished {
        let mut command = self.on(machine, self.work.command(arguments));
        Finished::from(command.output().unwrap())
    }

    /// A training of [`RUN`].
    pub fn train(&self, machine: &str, more: &[&str]) -> Finished {
        self.run(machine, &self.work.train_arguments(RUN, more))
    }

    /// Starts one without waiting for it.
    pub fn start(&self, machine: &str, more: &[&str]) -> Child {
        let command = self.work.command(&self.work.train_arguments(RUN, more));
        let mut command = self.on(machine, command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The folder that the run works in on a machine.
    #[track_caller]
    pub fn folder(&self, machine: &str) -> PathBuf {
        let runs = self.work.path(machine).join("spark-backbone/runs");
        let found = names(&runs);
        assert_eq!(found.len(), 1, "{found:?}");
        runs.join(&found[0])
    }

    /// The content of an object of the run.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.objects.get("bucket", &format!("{PREFIX}{name}"))
    }

    /// Waits until the object of the run is there and has another content than `before`.
    pub fn wait_for(&self, name: &str, before: Option<&[u8]>) -> Vec<u8> {
        wait_until(|| self.get(name).is_some_and(|found| Some(&*found) != before));
        self.get(name).unwrap()
    }

    /// The names of the run's objects, without those of event files, which tell the time.
    pub fn names(&self) -> Vec<String> {
        let keys = self.objects.keys("bucket").into_iter();
        let names = keys.filter_map(|key| Some(key.strip_prefix(PREFIX)?.to_owned()));
        names.filter(|name| !name.starts_with("tensorboard/")).collect()
    }

    /// The content of the run's checkpoints and exports in storage. A network that was read from its
    /// file is exported with what else lies in that file (sample inputs), one from a checkpoint
    /// without.
    pub fn bits(&self) -> BTreeMap<String, Vec<u8>> {
        let is_learned = |name: &String| {
            name.starts_with("checkpoints/")
                || name.starts_with("export/") && !name.ends_with(".pt2")
        };
        let names = self.names().into_iter().filter(is_learned);
        names.map(|name| (name.clone(), self.get(&name).unwrap())).collect()
    }

    /// The run's objects have what the files of its folder on a machine have.
    #[track_caller]
    pub fn is_as_on(&self, machine: &str) {
        let folder = self.folder(machine);
        for name in self.names() {
            assert!(self.get(&name).unwrap() == read(folder.join(&name)), "{name} differs");
        }
    }

    /// Step and loss of each record in storage.
    pub fn losses(&self) -> Vec<(u64, f64)> {
        let text = String::from_utf8(self.get("metrics.jsonl").unwrap()).unwrap();
        let of_step = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            Some((record["step"].as_u64()?, record["loss"].as_f64()?))
        };
        text.lines().filter_map(of_step).collect()
    }

    /// A run that is killed on one machine and goes on on another leaves the bits of one that was
    /// never interrupted; the store with it. `settings` are those of the training, which saves more
    /// than once.
    pub fn goes_on_elsewhere(work: &'a Workplace, settings: &[&str]) -> Self {
        let whole = Self::new(work);
        whole.train("one", settings).succeeded();
        // Of the same name, in another store: names are in checkpoints.
        let killed = Self::new(work);
        let mut child = killed.start("two", settings);
        let first = killed.wait_for("checkpoints/last.safetensors", None);
        killed.wait_for("checkpoints/last.safetensors", Some(&first));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(killed.names(), whole.names(), "it was over before it was killed");
        let resumed = killed.run("three", &["train", "--output", RUN, "--resume"]).succeeded();
        super::assert_says(
            &resumed.err,
            &["fetching s3://bucket/runs/first", "resuming after step"],
        );
        assert_eq!(killed.names(), whole.names());
        assert_eq!(killed.losses(), whole.losses());
        super::assert_same_bits(&killed.bits(), &whole.bits());
        killed.is_as_on("three");
        killed
    }
}
