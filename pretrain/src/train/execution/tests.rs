use std::collections::BTreeMap;

use anyhow::bail;
use engine::distributed::ProcessGroup;
use engine::settings::{TrainSettings as _, from_layers};
use engine::training::ResumeMode;
use image::RgbImage;
use serde_json::json;

use super::*;
use crate::config::TrainConfig;
use crate::train::prepare;

fn cost(seconds: f64) -> Cost {
    Cost { seconds, bytes: None }
}

fn trials(packed: Result<f64, &str>, masked: Result<f64, &str>) -> Trials {
    let of = |trial: Result<f64, &str>| trial.map(cost).map_err(str::to_owned);
    Trials { packed: of(packed), masked: of(masked) }
}

#[test]
fn the_executions_take_turns_and_the_median_counts() {
    let mut asked = Vec::new();
    let trials = Trials::of(|execution, round| {
        asked.push((execution, round));
        // The first step of each takes long, and one of the others is held up.
        let packed = [100.0, 0.2, 7.0, 0.3][round as usize];
        Ok(match execution {
            Execution::Packed => Cost { seconds: packed, bytes: Some(round as usize) },
            Execution::MaskedDense => cost(0.25),
        })
    });
    let turns = (0..=3).flat_map(|n| [(Execution::Packed, n), (Execution::MaskedDense, n)]);
    assert_eq!(asked, turns.collect::<Vec<_>>());
    assert_eq!(trials.packed, Ok(Cost { seconds: 0.3, bytes: Some(3) }));
    assert_eq!(trials.faster(), Execution::MaskedDense);
    let told = "masked: 0.250 s a step, packed 0.300 s and 0.00 GB";
    assert_eq!(trials.to_string(), told);
}

#[test]
fn the_faster_is_taken_and_both_are_told() {
    let both = trials(Ok(0.1234), Ok(0.2));
    assert_eq!(both.faster(), Execution::Packed);
    assert_eq!(both.to_string(), "packed: 0.123 s a step, masked 0.200 s");
    assert_eq!(
        json!(both.record(0)),
        json!({
            "step": 0, "execution": "packed", "packed_seconds": 0.1234, "masked_seconds": 0.2,
            "packed_bytes": null, "masked_bytes": null,
        })
    );
    assert_eq!(trials(Ok(0.1), Ok(0.1)).faster(), Execution::Packed, "of equals");
    let memory = |seconds, bytes| Ok(Cost { seconds, bytes: Some(bytes) });
    let both = Trials { packed: memory(2.0, 3_210_000_000), masked: memory(1.0, 5_000_000_000) };
    let told = "masked: 1.000 s a step and 5.00 GB, packed 2.000 s and 3.21 GB";
    assert_eq!(both.to_string(), told);
}

#[test]
fn one_that_fails_leaves_the_other() {
    let mut tries = 0;
    let masked_fails = Trials::of(|execution, _| {
        if execution == Execution::MaskedDense {
            tries += 1;
            bail!("CUDA out of memory. Tried to allocate 2.00 GiB\nException raised from …");
        }
        Ok(cost(5.0))
    });
    assert_eq!((masked_fails.faster(), tries), (Execution::Packed, 1));
    let told = "packed: 5.000 s a step, masked failed: CUDA out of memory. Tried to allocate \
                2.00 GiB";
    assert_eq!(masked_fails.to_string(), told);
    assert_eq!(json!(masked_fails.record(0))["masked_seconds"], json!(null));

    let packed_fails = trials(Err("no memory"), Ok(9.0));
    assert_eq!(packed_fails.faster(), Execution::MaskedDense);
    assert_eq!(packed_fails.to_string(), "masked: 9.000 s a step, packed failed: no memory");

    let none = trials(Err("a"), Err("b"));
    assert_eq!(none.faster(), Execution::Packed);
    let told = "packed, though it failed when it was tried (a); masked failed: b";
    assert_eq!(none.to_string(), told);
}

#[test]
fn several_processes_wait_for_the_slowest_and_need_all() {
    let first = trials(Ok(1.0), Ok(1.5));
    let of_all = Trials::of_all(&[first.clone(), trials(Ok(2.0), Ok(1.6))]);
    assert_eq!(of_all, trials(Ok(2.0), Ok(1.6)));
    assert_eq!(of_all.faster(), Execution::MaskedDense);
    let of_all = Trials::of_all(&[first, trials(Ok(2.0), Err("no memory"))]);
    assert_eq!(of_all, trials(Ok(2.0), Err("no memory")));
    // As it is sent.
    let text = serde_json::to_string(&of_all).unwrap();
    assert_eq!(serde_json::from_str::<Trials>(&text).unwrap(), of_all);
}

/// Everything that a step changes, and no gradient, is as it was.
#[test]
fn a_trial_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    RgbImage::new(64, 64).save(folder.path().join("a.png")).unwrap();
    let mut table: toml::Table = "model = \"resnet18\"\ninput-size = 64\ndecoder-width = 32\n\
         batch-size = 4\naccum-steps = 2\ndrop-path = 0.3\nema = 0.9\nthreads = 1\n\
         device = \"cpu\"\noutput = \"o\""
        .parse()
        .unwrap();
    table.insert("data".into(), folder.path().to_str().unwrap().into());
    let config: TrainConfig = from_layers([table]).unwrap();
    let start = ResumeMode::New { overwrite: false };
    let setup = prepare(config.resolve().unwrap(), &start, &ProcessGroup::alone(), None).unwrap();
    let (task, trainer) = (&setup.task, &setup.trainer);
    let copy = |tensors: &BTreeMap<String, Tensor>| -> Vec<Tensor> {
        tensors.values().map(|tensor| tensor.detach().copy()).collect()
    };
    let averages = trainer.ema.as_ref().unwrap().averages();
    let all = || [copy(&trainer.variables), copy(&trainer.optimizer.state()), copy(averages)];

    let before = all();
    let trials = try_both(task, trainer).unwrap();
    let (packed, masked) = (trials.packed.unwrap(), trials.masked.unwrap());
    assert!(packed.seconds > 0.0 && masked.seconds > 0.0, "{packed:?} {masked:?}");
    for (before, after) in before.iter().flatten().zip(all().iter().flatten()) {
        assert!(before.equal(after));
    }
    let gradients = trainer.variables.values().filter(|variable| variable.grad().defined());
    assert_eq!(gradients.count(), 0);
}
