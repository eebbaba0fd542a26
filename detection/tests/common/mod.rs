//! What the tests of the program share: a tiny data set and short runs.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};

/// A folder with photographs, a data set and runs, deleted at the end.
pub struct Workplace {
    folder: tempfile::TempDir,
}

/// Settings of a run of seconds: 64 px, a tiny detector.
const SHORT: &str = "small = true\n\
     backbone = \"resnet18\"\n\
     batch-size = 2\n\
     epochs = 2\n\
     iterations = 0\n\
     schedule = \"cosine\"\n\
     warmup-iterations = 2\n\
     base-lr = 4e-3\n\
     precise-bn = 1\n\
     keep-empty = true\n\
     eval-short-side = 64\n\
     eval-max-side = 96\n\
     device = \"cpu\"\n\
     threads = 1\n\
     workers = 2\n\
     log-steps = 1\n\
     pictures = 2\n\
     eval-steps = 0\n\
     checkpoint-steps = 0\n\
     checkpoint-epochs = 1\n\
     [[augmentation]]\n\
     [augmentation.resize_shortest_edge]\n\
     short = [48, 64]\n\
     max = 96\n\
     [[augmentation]]\n\
     [augmentation.flip]\n\
     probability = 0.5\n\
     [model]\n\
     fpn-channels = 32\n\
     [model.rpn]\n\
     batch = 32\n\
     pre-nms-train = 64\n\
     pre-nms-test = 64\n\
     post-nms-train = 32\n\
     post-nms-test = 32\n\
     [model.roi]\n\
     batch = 16\n\
     [model.box-head]\n\
     fc-width = 32\n\
     [model.mask-head]\n\
     channels = 32\n\
     convs = 1\n";

impl Workplace {
    /// Photographs of blobs, `short.toml`, and a data set `demo` of two classes
    /// with `train` and three images.
    pub fn with_data(train: u32) -> Self {
        let work = Self::empty();
        let train = train.to_string();
        let arguments = "make-demo --photos photos --output demo --val 3 --size 64 --classes 2 \
                         --objects 2 --train";
        let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
        arguments.push(&train);
        work.run(&arguments).succeeded();
        work
    }

    /// Photographs and `short.toml` alone.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("photos")).unwrap();
        for number in 0..2 {
            blobs(number).save(folder.path().join(format!("photos/{number}.png"))).unwrap();
        }
        std::fs::write(folder.path().join("short.toml"), SHORT).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `detect` with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Runs `detect` to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().unwrap())
    }

    pub fn train_arguments<'a>(&self, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["train", "--data", "demo", "--output", output];
        arguments.extend(["--config", "short.toml"]);
        arguments.extend(more);
        arguments
    }

    pub fn train(&self, output: &str, more: &[&str]) -> Finished {
        self.run(&self.train_arguments(output, more))
    }

    /// Starts a run without waiting for it.
    pub fn start(&self, output: &str, more: &[&str]) -> Child {
        self.command(&self.train_arguments(output, more))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

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
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in:\n{}", self.err);
        }
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

/// Waits until the run has recorded `step`.
pub fn wait_for_step(run: &Path, step: u64) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        if text.contains(&format!("\"step\":{step},")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the run never came to step {step}");
}

/// Coloured waves, large enough to be cut in two.
fn blobs(number: u32) -> RgbImage {
    RgbImage::from_fn(320, 240, |x, y| {
        let wave = |a: u32, b: u32| ((x * a + y * b + number * 97) % 256) as u8;
        Rgb([wave(1, 2), wave(2, 1), wave(3, 3)])
    })
}
