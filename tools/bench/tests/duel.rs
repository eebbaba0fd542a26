//! A duel from end to end, as small as it can be, and refusals to time what is
//! not the same work.

use std::path::Path;

use backbone::models;
use backbone::weights::{read, write_safetensors};
use bench::duel::{Comparison, Observer, Outcome, Settings};
use bench::duels::spark::step;
use bench::inputs::SparkInputs;
use bench::inputs::spark::DECODER_WIDTH as WIDTH;
use bench::machine::Machine;
use bench::peak::{Peak, Reached};
use bench::report::Report;
use engine::precision::Precision;

struct Silent;

impl Observer for Silent {
    fn at(&mut self, _what: &str, _share: f64) {}
}

/// A processor's that does as many operations a second as are easily reckoned with.
fn peak() -> Peak {
    let reached = || Reached { speed: 1e12, by: String::new() };
    Peak { float32: reached(), bfloat16: reached() }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        threads: 1,
        rounds: 1,
        folder: folder.to_owned(),
        python: spark_tests::python(),
        program: env!("CARGO_BIN_EXE_bench").into(),
        peak: Some(peak()),
    }
}

fn inputs() -> SparkInputs {
    SparkInputs { exported: None, model: "resnet18".into(), batch: 2, size: 64, mask_ratio: 0.5 }
}

/// One way of theirs alone, with more arguments.
fn duel(more: &[&str]) -> Comparison {
    let mut duel = step(inputs(), Precision::Float32, 1);
    duel.theirs.truncate(1);
    duel.theirs[0].arguments.extend(more.iter().map(|&word| word.to_owned()));
    duel
}

fn run(more: &[&str], folder: &Path) -> Outcome {
    duel(more).run(&settings(folder), &mut Silent)
}

/// Why nothing was timed.
fn error(more: &[&str], folder: &Path) -> String {
    let outcome = run(more, folder);
    assert!(outcome.measured.is_none());
    outcome.error.unwrap()
}

/// Those of a step on [`inputs`], layer by layer.
fn operations() -> f64 {
    let SparkInputs { model, batch, size, mask_ratio, .. } = inputs();
    let forward = models::find(&model).unwrap().cost(3, 0, size, size).flops;
    // The gradients of values and of weights take as much as the way forward, but nobody wants
    // that of the images.
    let stem = 64 * 3 * 49 * (size / 2).pow(2);
    let encoder = (1.0 - mask_ratio) * (3 * forward - stem) as f64;
    let mut decoder = 0;
    for (level, channels) in (0..).zip([512, 256, 128, 64]) {
        let kernel = if level == 0 { 1 } else { 9 };
        decoder += channels * (WIDTH >> level) * kernel * ((size / 32) << level).pow(2);
    }
    for level in 0..5 {
        let (channels, side) = (WIDTH >> level, (size / 32) << level);
        decoder += channels * channels * 16 * side.pow(2);
        decoder += channels * (channels + channels / 2) * 9 * (2 * side).pow(2);
    }
    decoder += (WIDTH >> 5) * 3 * size.pow(2);
    2.0 * batch as f64 * (encoder + (3 * decoder) as f64)
}

#[test]
fn a_duel_checks_times_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(&[], folder.path());
    let measured = outcome.measured.as_ref().unwrap_or_else(|| panic!("{:?}", outcome.error));
    let checked = &measured.checks["loss"];
    assert!(checked.difference <= checked.tolerance, "{checked:?}");
    assert!(measured.ratio.median > 0.0);
    let roofline = measured.roofline.unwrap();
    assert_eq!(roofline.operations, operations());
    assert_eq!(roofline.seconds, operations() / 1e12);
    assert_eq!(roofline.ours, roofline.seconds / measured.ours.seconds.median);
    // Parameters, gradients and the optimizer's averages are four times as much
    // as the weights, whose file has the images too.
    let file = inputs().path(folder.path()).metadata().unwrap().len() as f64 / 1e6;
    for side in [&measured.ours, &measured.theirs] {
        assert!((3.0 * file..20.0 * file).contains(&side.peak_mb), "{file} MB: {side:?}");
    }

    let machine = Machine::this(&spark_tests::python()).unwrap();
    let report = Report { machine, threads: 1, rounds: 1, duels: vec![outcome] };
    report.write(folder.path()).unwrap();
    for name in ["results.json", "results.md", "results.png"] {
        assert!(folder.path().join(name).metadata().unwrap().len() > 100, "{name}");
    }
}

#[test]
fn other_weights_are_not_timed() {
    let folder = tempfile::tempdir().unwrap();
    let path = inputs().write(folder.path()).unwrap();
    let mut tensors = read(&path).unwrap().tensors;
    let weight = tensors.get_mut("model.dense_decoder.proj.weight").unwrap();
    *weight *= 1.01;
    let other = folder.path().join("other.safetensors");
    write_safetensors(&other, &tensors, &Default::default()).unwrap();

    let error = error(&["--inputs", other.to_str().unwrap()], folder.path());
    assert!(error.starts_with("loss is ") && error.contains("nothing was timed"), "{error}");
}

#[test]
fn another_update_is_not_timed() {
    let folder = tempfile::tempdir().unwrap();
    let error = error(&["--lr", "1.1e-3"], folder.path());
    assert!(error.starts_with("loss is ") && error.contains("nothing was timed"), "{error}");
}

#[test]
fn a_side_that_fails_is_told_with_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let error = error(&["--model", "resnet19"], folder.path());
    assert!(error.contains("theirs ended") && error.contains("'resnet19'"), "{error}");
}
