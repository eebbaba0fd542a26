//! What a training step asks of libtorch: how many operators, and that none
//! makes the host wait for its device. In a program of its own, since calls are
//! recorded process-wide.

use backbone::models::{self, BuildOptions};
use backbone::{DropPathDraws, Mode};
use engine::operators::Record;
use engine::optim::{Lamb, LambConfig, Optimizer as _, param_groups};
use engine::rng::Rng;
use pretrain::mask;
use pretrain::spark::Spark;
use tch::{Device, Kind, Tensor, nn};

/// Calls that do work in the second step, by model: forward, backward and LAMB.
/// A step that needs more has become slower where launches count; one that needs
/// fewer is to be noted here.
const LAUNCHES: [(&str, u64); 2] = [("resnet18", 1366), ("convnext_atto", 1527)];

/// One after the other: recordings see the calls of all threads.
#[test]
fn what_is_recorded() {
    reading_a_value_back_is_a_synchronisation();
    a_step_calls_no_more_operators_than_it_did_and_waits_for_no_device();
}

fn a_step_calls_no_more_operators_than_it_did_and_waits_for_no_device() {
    let mut counts = Vec::new();
    for (name, _) in LAUNCHES {
        let mut step = step(name);
        step(0);
        let ((), record) = Record::of(|| step(1)).unwrap();
        assert_eq!(record.synchronisations(), 0, "{name}:\n{record}");
        counts.push((name, record.launches()));
    }
    assert_eq!(counts, LAUNCHES);
}

/// Recording is one at a time, and ends with what it records.
fn reading_a_value_back_is_a_synchronisation() {
    let (value, record) = Record::of(|| Tensor::from(2.5f64).double_value(&[])).unwrap();
    assert_eq!((value, record.synchronisations()), (2.5, 1));
    let (nested, _) = Record::of(|| Record::of(|| ()).map(drop)).unwrap();
    assert!(nested.unwrap_err().to_string().contains("one at a time"));
}

/// A step's arithmetic, from the batch's arrival to the updated weights.
fn step(name: &str) -> impl FnMut(u64) {
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let model = models::find(name).unwrap();
    let build = |path: &nn::Path| model.build(path, &BuildOptions::default());
    let spark = Spark::new(&store.root(), 64, build).unwrap();
    let params = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    let mut params: Vec<_> = params.collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let mut optimizer = Lamb::new(param_groups(params), LambConfig::default()).unwrap();
    let images = Tensor::randn([2, 3, 32, 64], (Kind::Float, Device::Cpu));
    move |number| {
        let _kept = &store;
        optimizer.zero_grad();
        let generators = (0..2).map(|image| Rng::new(0, &[number, image]));
        let mask = mask::draw(generators, (1, 2), 1, Device::Cpu).unwrap();
        let mode = Mode::train().with_drop_path(DropPathDraws::Off);
        spark.loss(&images, &mask, &mode).unwrap().backward();
        optimizer.step(1e-3, 0.05);
    }
}
