//! What the tests of the program share: small photographs and short runs.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use backbone::weights::{self, StateDict};
use engine::checkpoint::CheckpointFile;
use image::{Rgb, RgbImage};

/// A folder with images and runs, deleted at the end.
pub struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    /// `count` pictures of blobs, 80×72 pixels, in two class folders.
    pub fn with_images(count: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..count {
            let class = folder.path().join(format!("images/class{}", number % 2));
            std::fs::create_dir_all(&class).unwrap();
            blobs(number).save(class.join(format!("{number:03}.png"))).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `pretrain` with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Runs `pretrain` to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().unwrap())
    }

    /// Arguments of a run of seconds: 64 px, a narrow decoder.
    pub fn train_arguments<'a>(&self, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["train", "--data", "images", "--output", output];
        arguments.extend(SHORT.split_whitespace());
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

const SHORT: &str = "--model resnet18 --input-size 64 --decoder-width 32 --batch-size 4 \
                     --epochs 4 --warmup-epochs 1 --base-lr 0.05 --optimizer adamw \
                     --threads 1 --workers 2 --device cpu --log-steps 1 --picture-epochs 0";

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
        assert!(!self.ok, "should have failed:\n{}\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in:\n{}", self.err);
        }
        self
    }
}

/// Coloured discs on a gradient.
fn blobs(seed: u32) -> RgbImage {
    RgbImage::from_fn(80, 72, |x, y| {
        let mut colour = [(x * 2) as u8, (y * 3) as u8, 90];
        for disc in 0..4u32 {
            let hash = (seed * 31 + disc * 17 + 7).wrapping_mul(2_654_435_761);
            let (cx, cy, r) = ((hash >> 8) % 80, (hash >> 16) % 72, 6 + (hash >> 24) % 14);
            if x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < r * r {
                colour = [(hash >> 3) as u8, (hash >> 11) as u8, (hash >> 19) as u8];
            }
        }
        Rgb(colour)
    })
}

pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// One epoch.
pub const SHORTER: [&str; 4] = ["--epochs", "1", "--warmup-epochs", "0"];

/// [`SHORTER`] and more.
pub fn shorter<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SHORTER.as_slice(), more].concat()
}

#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

pub fn tensors(work: &Workplace, name: &str) -> StateDict {
    weights::read(work.path(name)).unwrap().tensors
}

/// `pretrain reconstruct` on two images; its tensors.
pub fn reconstruct(work: &Workplace, checkpoint: &str, more: &[&str]) -> (Finished, StateDict) {
    let arguments = ["reconstruct", "--checkpoint", checkpoint, "--output", "sheet.png"];
    let images = ["--tensors", "tensors", "images/class0/000.png", "images/class1/001.png"];
    let finished = work.run(&[&arguments, more, &images].concat()).succeeded();
    (finished, tensors(work, "tensors"))
}

/// Visible pixels are the original's, masked ones are not.
pub fn check_reconstruction(found: &StateDict, size: [i64; 4], visible: i64) {
    let (original, active) = (&found["original"], &found["active"]);
    let [_, _, height, width] = size;
    assert_eq!(original.size(), size);
    assert_eq!(active.size(), [size[0], 1, height / 32, width / 32]);
    let per_image = active.sum_dim_intlist([1i64, 2, 3].as_slice(), false, tch::Kind::Int64);
    assert_eq!(Vec::<i64>::try_from(per_image).unwrap(), vec![visible; size[0] as usize]);
    let pixels = active.repeat_interleave_self_int(32, 2, None);
    let pixels = pixels.repeat_interleave_self_int(32, 3, None).expand_as(original);
    let differs = found["reconstruction"].ne_tensor(original);
    assert_eq!(differs.logical_and(&pixels).any().int64_value(&[]), 0, "copied exactly");
    let share = differs.sum(tch::Kind::Double) / pixels.logical_not().sum(tch::Kind::Double);
    assert!(share.double_value(&[]) > 0.99, "predicted, not copied");
}

pub fn checkpoint(work: &Workplace, run: &str) -> CheckpointFile {
    CheckpointFile::open(&work.path(run).join("checkpoints/last.safetensors")).unwrap()
}

pub fn section(work: &Workplace, run: &str, name: &str) -> StateDict {
    checkpoint(work, run).section(name).unwrap()
}
