//! `pretrain forward` in its own words: files in, files out, compared with the
//! official implementation's numbers; and what it refuses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backbone::models::{self, BuildOptions};
use backbone::weights::{StateDict, export, read, write_pth, write_safetensors};
use clap::Parser;
use pretrain::cli::Cli;
use pretrain::spark::{ENCODER_PREFIX, Spark};
use spark_tests::rule;
use tch::{Device, Kind, Tensor, nn::VarStore};

/// How far results may be from the fixture's, relative to the largest value
/// (small ones come out of cancellation), gradient norms each to itself.
struct Tolerances {
    /// Of what the fixture stores as float32.
    stored_f32: f64,
    /// Of what it stores as float64.
    stored_f64: f64,
    /// Of gradient norms, stored as float64.
    gradients: f64,
}

/// Half a unit in the last of float32's 24 bits; float64 sums of up to 10⁶
/// terms in another order.
const FLOAT64: Tolerances = Tolerances { stored_f32: 1e-6, stored_f64: 1e-9, gradients: 1e-9 };
/// Float32 through fifty layers with batch statistics of as few as eight
/// positions, which magnify a rounding some thousand times. On the way back a
/// rectifier whose input rounds to the other side of zero opens or closes at
/// once: 0.5 % was seen.
const FLOAT32: Tolerances = Tolerances { stored_f32: 1e-3, stored_f64: 1e-3, gradients: 0.05 };
/// The same float64 operations on packed patches and on the masked grid.
const SAME_SUMS: f64 = 1e-10;

fn fixture(model: &str) -> PathBuf {
    let name = format!("fixtures/spark_{model}_96.safetensors");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The fixture's names of parameters and running statistics.
fn list(model: &str, key: &str) -> Vec<String> {
    serde_json::from_str(&read(fixture(model)).unwrap().metadata[key]).unwrap()
}

/// What an official checkpoint holds, filled by rule: the model with decoder,
/// without counters of batches and ConvNeXt's last norm, and with buffers that
/// nothing here uses.
fn official_weights(model: &str, width: i64) -> StateDict {
    let store = VarStore::new(Device::Cpu);
    let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
    let build = |path: &tch::nn::Path| models::find(model).unwrap().build(path, &options);
    Spark::new(&store.root(), width, build).unwrap();
    let last_norm = format!("{ENCODER_PREFIX}.norm.");
    let mut weights: StateDict = store
        .variables()
        .into_iter()
        .filter(|(name, t)| t.is_floating_point() && !name.starts_with(&last_norm))
        .map(|(name, t)| (name.clone(), rule::weight(&name, &t.size())))
        .collect();
    for (name, shape) in
        [("imn_m", [1, 3, 1, 1]), ("imn_s", [1, 3, 1, 1]), ("norm_black", [1, 3, 224, 224])]
    {
        weights.insert(name.into(), Tensor::ones(shape, (Kind::Float, Device::Cpu)));
    }
    weights
}

/// Runs `pretrain forward` in this process.
fn forward(arguments: &[&str]) -> anyhow::Result<()> {
    Cli::try_parse_from([&["pretrain", "forward"], arguments].concat())?.run()
}

/// Weights and results of one model.
struct Case {
    model: &'static str,
    folder: tempfile::TempDir,
    fixture: StateDict,
}

impl Case {
    fn new(model: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weights = official_weights(model, 768);
        write_safetensors(folder.path().join("w.safetensors"), &weights, &Default::default())
            .unwrap();
        Case { model, folder, fixture: read(fixture(model)).unwrap().tensors }
    }

    fn run(&self, weights: &str, more: &[&str]) -> StateDict {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (weights, out, batch) = (path(weights), path("o.safetensors"), fixture(self.model));
        let batch = batch.to_str().unwrap();
        let arguments = ["--weights", &weights, "--batch", batch, "--out", &out];
        forward(&[&arguments, more].concat()).unwrap();
        read(out).unwrap().tensors
    }

    fn check(&self, results: &StateDict, mode: &str, tolerances: &Tolerances) {
        let check = |name: &str, got: &Tensor, tolerance| {
            compare(name, got, &self.fixture[name], tolerance);
        };
        check(&format!("{mode}.loss"), &results["loss"], tolerances.stored_f64);
        if mode == "eval" {
            for level in 0..4 {
                let every_eighth = results[&format!("feature{level}")].slice(1, 0, None, 8);
                let name = format!("sparse_eval.feature{level}");
                check(&name, &every_eighth, tolerances.stored_f32);
            }
            check("eval.reconstruction", &results["reconstruction"], tolerances.stored_f32);
            return;
        }
        let norms = |kind: &str, names: &str| {
            let names = list(self.model, names);
            let reported: BTreeSet<&str> =
                results.keys().filter_map(|name| name.strip_prefix(kind)).collect();
            assert_eq!(reported, names.iter().map(String::as_str).collect(), "{kind}");
            let norms: Vec<&Tensor> =
                names.iter().map(|name| &results[&format!("{kind}{name}")]).collect();
            Tensor::cat(&norms, 0)
        };
        let gradients = norms("grad_norm.", "params");
        check_each(&gradients, &self.fixture["train.grad_norm"], tolerances.gradients);
        let running = norms("running_norm.", "running");
        check("train.running_norm", &running, tolerances.stored_f64);
    }
}

/// Relative to the largest value.
fn compare(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    let (got, expected) = (got.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    assert_eq!(got.size(), expected.size(), "{name}");
    let scale = expected.abs().max().double_value(&[]);
    let difference = (got - expected).abs().max().double_value(&[]) / scale;
    assert!(difference <= tolerance, "{name}: off by {difference:.2e} of {scale:.3}");
}

/// Each norm relative to itself, but biases that a batch norm follows: their
/// gradients are zero up to rounding and compared with the largest norm.
fn check_each(got: &Tensor, expected: &Tensor, tolerance: f64) {
    let largest = expected.max().double_value(&[]);
    let expected_values = Vec::<f64>::try_from(expected).unwrap();
    let got = Vec::<f64>::try_from(got.to_kind(Kind::Double)).unwrap();
    for (index, (expected, got)) in expected_values.into_iter().zip(got).enumerate() {
        let scale = if expected < 1e-12 * largest { largest } else { expected };
        let difference = (got - expected).abs() / scale;
        assert!(difference <= tolerance, "gradient {index}: {got:e} for {expected:e}");
    }
}

const TRAIN: [&str; 2] = ["--mode", "train"];
const DOUBLE: [&str; 2] = ["--dtype", "float64"];

#[test]
fn resnet50() {
    let case = Case::new("resnet50");
    // As data-parallel training saves it.
    let weights = read(case.folder.path().join("w.safetensors")).unwrap().tensors;
    let module = weights.into_iter().map(|(name, t)| (format!("module.{name}"), t)).collect();
    write_pth(case.folder.path().join("w.pth"), &module).unwrap();

    let eval = case.run("w.pth", &[DOUBLE, ["--model", "resnet50"]].concat());
    assert_eq!(eval.len(), 6, "four maps, reconstruction, loss: {:?}", eval.keys());
    assert_eq!(eval["feature0"].kind(), Kind::Double);
    case.check(&eval, "eval", &FLOAT64);
    // The model is found out from the weights.
    let packed = case.run("w.safetensors", &[DOUBLE, TRAIN].concat());
    case.check(&packed, "train", &FLOAT64);
    let dense = [DOUBLE.as_slice(), &TRAIN, &["--masked-dense"]].concat();
    let dense = case.run("w.safetensors", &dense);
    case.check(&dense, "train", &FLOAT64);
    for level in 0..4 {
        let name = format!("feature{level}");
        compare(&name, &dense[&name], &packed[&name], SAME_SUMS);
    }
    compare("reconstruction", &dense["reconstruction"], &packed["reconstruction"], SAME_SUMS);

    let single = case.run("w.safetensors", &TRAIN);
    assert_eq!(single["feature0"].kind(), Kind::Float);
    case.check(&single, "train", &FLOAT32);
    case.check(&case.run("w.safetensors", &[]), "eval", &FLOAT32);
}

#[test]
fn convnext_small() {
    let case = Case::new("convnext_small");
    let train = case.run("w.safetensors", &[DOUBLE, TRAIN].concat());
    case.check(&train, "train", &FLOAT64);
    case.check(&case.run("w.safetensors", &[]), "eval", &FLOAT32);
}

/// Float64 weights lose nothing on their way into a float64 pass.
#[test]
fn float64_weights_keep_their_digits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut weights = official_weights("resnet18", 32);
    write_batch(&path("b.safetensors"), [1, 3, 64, 64], &[true, false, false, true]);
    let mut loss = |name: &str| {
        let out = path(&format!("{name}.out"));
        write_safetensors(path(name), &weights, &Default::default()).unwrap();
        let batch = path("b.safetensors");
        let arguments = ["--weights", &path(name), "--batch", &batch, "--out", &out];
        forward(&[arguments.as_slice(), &["--dtype", "float64"]].concat()).unwrap();
        let name = "dense_decoder.proj.weight";
        let nudged = weights[name].to_kind(Kind::Double) * (1.0 + 1e-10);
        weights.insert(name.into(), nudged);
        read(out).unwrap().tensors["loss"].double_value(&[0])
    };
    let (before, after) = (loss("a"), loss("b"));
    assert!(before != after && (before / after - 1.0).abs() < 1e-8, "{before:e} {after:e}");
}

fn write_batch(path: &str, size: [i64; 4], active: &[bool]) {
    let side = (active.len() as f64 / size[0] as f64).sqrt() as i64;
    let batch = StateDict::from([
        ("input".into(), Tensor::randn(size, (Kind::Float, Device::Cpu))),
        ("active".into(), Tensor::from_slice(active).view([size[0], 1, side, side])),
    ]);
    write_safetensors(path, &batch, &Default::default()).unwrap();
}

/// A small model's folder in which single files are wrong.
struct Refusals {
    folder: tempfile::TempDir,
}

impl Refusals {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs with these files and expects every part of a message, and nothing
    /// written.
    #[track_caller]
    fn expect(&self, files: [&str; 3], more: &[&str], parts: &[&str]) {
        let [weights, batch, out] = files.map(|name| self.path(name));
        let before = self.files();
        let arguments = ["--weights", &weights, "--batch", &batch, "--out", &out];
        let error = forward(&[&arguments, more].concat()).expect_err("should be refused");
        let message = format!("{error:#}");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        assert_eq!(self.files(), before, "{message}");
    }

    /// A batch whose tensors are changed.
    #[track_caller]
    fn batch(&self, change: impl FnOnce(&mut StateDict), parts: &[&str]) {
        let mut batch = read(self.path("batch")).unwrap().tensors;
        change(&mut batch);
        write_safetensors(self.path("changed"), &batch, &Default::default()).unwrap();
        for mode in ["eval", "train"] {
            self.expect(["weights", "changed", "out"], &["--mode", mode], parts);
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let here = Refusals { folder: tempfile::tempdir().unwrap() };
    let weights = official_weights("resnet18", 32);
    write_safetensors(here.path("weights"), &weights, &Default::default()).unwrap();
    let half = [true, false, false, true, false, true, true, false];
    write_batch(&here.path("batch"), [2, 3, 64, 64], &half);

    let float = |size: [i64; 4]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let visible = |size: &[i64]| Tensor::ones(size, (Kind::Bool, Device::Cpu));
    here.batch(|b| drop(b.remove("active")), &["has no tensor `active`; it has [\"input\"]"]);
    here.batch(|b| drop(b.remove("input")), &["has no tensor `input`; it has [\"active\"]"]);
    let active = "it must be Bool [N, 1, rows, cols]";
    here.batch(|b| drop(b.insert("active".into(), visible(&[2, 2, 2]))), &["[2, 2, 2]", active]);
    here.batch(
        |b| drop(b.insert("active".into(), visible(&[2, 1, 2, 2]).to_kind(Kind::Float))),
        &["active is Float", active],
    );
    here.batch(|b| drop(b.insert("active".into(), visible(&[3, 1, 2, 2]))), &["[2, 3, 64, 64]"]);
    here.batch(|b| drop(b.insert("active".into(), visible(&[2, 1, 3, 3]))), &["[2, 3, 64, 64]"]);
    here.batch(
        |b| drop(b.insert("active".into(), visible(&[2, 1, 4, 4]))),
        &["16×16 pixels", "multiples of the total stride 32"],
    );
    here.batch(
        |b| drop(b.insert("active".into(), visible(&[2, 1, 2, 2]).logical_not())),
        &["at least one"],
    );
    let integers = float([2, 3, 64, 64]).to_kind(Kind::Int64);
    here.batch(
        |b| drop(b.insert("input".into(), integers)),
        &["input is of type Int64, but it must hold normalised floating-point images"],
    );
    here.batch(
        |b| drop(b.insert("input".into(), float([2, 4, 64, 64]))),
        &["input is [2, 4, 64, 64], but the backbone takes [N, 3, H, W]"],
    );
    here.batch(
        |b| drop(b.insert("input".into(), float([2, 3, 100, 100]))),
        &["input size is 100×100", "multiples of the total stride 32"],
    );
    here.batch(
        |b| drop(b.insert("input".into(), float([6, 64, 64, 1]).squeeze())),
        &["[6, 64, 64]"],
    );

    let prefix = format!("{ENCODER_PREFIX}.");
    let own = weights.iter().filter_map(|(name, tensor)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), tensor.shallow_clone()))
    });
    let model = models::find("resnet18").unwrap();
    let encoder = export(model.family(), "official".parse().unwrap(), &own.collect()).unwrap();
    write_pth(here.path("encoder"), &encoder).unwrap();
    here.expect(["encoder", "batch", "out"], &[], &["encoder holds no SparK decoder"]);
    let mut lacking = weights;
    lacking.remove("densify_norms.1.weight");
    write_safetensors(here.path("lacking"), &lacking, &Default::default()).unwrap();
    here.expect(["lacking", "batch", "out"], &[], &["lacking", "densify_norms.1.weight"]);
    here.expect(["weights", "batch", "out"], &["--model", "resnet34"], &["weights does not fit"]);
    here.expect(["weights", "batch", "out"], &["--model", "resnet"], &["model is \"resnet\""]);

    std::fs::write(here.path("text"), "no tensors").unwrap();
    std::fs::create_dir(here.path("folder")).unwrap();
    here.expect(["weights", "text", "out"], &[], &["text"]);
    here.expect(["weights", "missing", "out"], &[], &["missing"]);
    here.expect(["missing", "batch", "out"], &[], &["missing"]);
    here.expect(["weights", "batch", "folder"], &[], &["folder"]);
    here.expect(["weights", "batch", "nowhere/out"], &[], &["nowhere/out"]);
    here.expect(["weights", "batch", "out"], &["--dtype", "float16"], &["float16", "float64"]);
    here.expect(["weights", "batch", "out"], &["--device", "tpu"], &["device is \"tpu\""]);
}
