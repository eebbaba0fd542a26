//! Passes that freeze stages of the network, hold batch norms still, or end
//! before the last stage.

use backbone::models::{self, BuildOptions, MODELS};
use backbone::{Backbone, FeatureMap, Mode};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::support::fill;

/// A network that drops nearly every block it may, filled with noise.
fn network(name: &str) -> (Box<dyn Backbone>, VarStore) {
    let mut store = VarStore::new(Device::Cpu);
    let options = BuildOptions { drop_path_rate: 0.9, ..BuildOptions::default() };
    let network = models::find(name).unwrap().build(&store.root(), &options).unwrap();
    fill(&mut store, 7);
    (network, store)
}

fn images() -> FeatureMap {
    FeatureMap::Grid(Tensor::randn([4, 3, 64, 64], (Kind::Double, Device::Cpu)))
}

fn maps(network: &dyn Backbone, x: &FeatureMap, mode: &Mode) -> Vec<Tensor> {
    network.forward(x, mode).unwrap().iter().map(FeatureMap::to_grid).collect()
}

/// Copies of the batch norms' statistics, by name.
fn statistics(store: &VarStore) -> Vec<(String, Tensor)> {
    let buffers = store.variables().into_iter().filter(|(_, tensor)| !tensor.requires_grad());
    buffers.map(|(name, tensor)| (name, tensor.copy())).collect()
}

/// The index of the stage of a ResNet or RegNet that a tensor is in, told from its name by hand.
fn named_stage_index(name: &str) -> usize {
    let starts = |stage| [format!("layer{stage}."), format!("s{stage}.")];
    (1..=4).find(|stage| starts(*stage).iter().any(|start| name.starts_with(start))).unwrap_or(0)
}

#[test]
fn frozen_stages_run_as_in_evaluation() {
    for name in ["resnet18", "convnext_tiny", "regnety_016"] {
        let x = images();
        for freeze_at in 0..=5 {
            let (network, store) = network(name);
            let before = statistics(&store);
            let expected = maps(network.as_ref(), &x, &Mode::eval());
            let mode = Mode::train().with_freeze_at(freeze_at);
            let got = maps(network.as_ref(), &x, &mode);
            for (stage, (expected, got)) in expected.iter().zip(&got).enumerate() {
                assert_eq!(
                    expected.equal(got),
                    stage + 1 < freeze_at,
                    "{name}: {freeze_at}, {stage}"
                );
            }
            for (name, before) in before {
                let kept = store.variables()[&name].equal(&before);
                assert_eq!(
                    kept,
                    named_stage_index(&name) < freeze_at,
                    "{name} frozen at {freeze_at}"
                );
            }
        }
    }
}

#[test]
fn norms_in_evaluation_keep_their_statistics_and_pass_gradients() {
    let mut store = VarStore::new(Device::Cpu);
    let model = models::find("resnet18").unwrap();
    let network = model.build(&store.root(), &BuildOptions::default()).unwrap();
    fill(&mut store, 7);
    let (x, before) = (images(), statistics(&store));
    let expected = maps(network.as_ref(), &x, &Mode::eval());
    let got = maps(network.as_ref(), &x, &Mode::train().with_norm_eval(true));
    assert!(expected.iter().zip(&got).all(|(a, b)| a.equal(b)));
    for (name, before) in before {
        assert!(store.variables()[&name].equal(&before), "{name}");
    }
    got[3].sum(Kind::Double).backward();
    for (name, tensor) in store.variables() {
        assert_eq!(tensor.grad().defined(), tensor.requires_grad(), "{name}");
    }
}

#[test]
fn a_pass_can_end_early() {
    for name in ["resnet18", "convnext_tiny", "regnety_016"] {
        let (network, _store) = network(name);
        let x = images();
        let all = maps(network.as_ref(), &x, &Mode::eval());
        for stages in 0..=4 {
            let some = maps(network.as_ref(), &x, &Mode::eval().with_stages(stages));
            assert_eq!(some.len(), stages);
            assert!(some.iter().zip(&all).all(|(a, b)| a.equal(b)), "{name}: {stages}");
        }
    }
}

/// A tensor's stage is the one whose freezing makes it useless to train: told
/// by which stages' maps depend on it.
#[test]
fn every_tensor_is_in_the_stage_that_its_gradient_says() {
    let names = ["resnet18", "convnext_tiny", "regnety_016"];
    for model in MODELS.iter().filter(|model| names.contains(&model.name.as_ref())) {
        let mut store = VarStore::new(Device::Cpu);
        let network = model.build(&store.root(), &BuildOptions::default()).unwrap();
        fill(&mut store, 7);
        let x = images();
        let mut indices = std::collections::HashMap::new();
        // From the coarsest on: the finest stage that depends on a tensor stays.
        for stage in (0..4).rev() {
            for tensor in store.trainable_variables() {
                tensor.grad().defined().then(|| tensor.grad().zero_());
            }
            maps(network.as_ref(), &x, &Mode::train())[stage].sum(Kind::Double).backward();
            for (name, tensor) in store.variables() {
                let gradient = tensor.grad();
                if gradient.defined() && gradient.count_nonzero(None::<i64>).int64_value(&[]) > 0 {
                    indices.insert(name, stage + 1);
                }
            }
        }
        for (name, tensor) in store.variables() {
            let index =
                network.stage_index(&name).unwrap_or_else(|| panic!("{name} is in no stage"));
            match indices.get(&name) {
                Some(&first) => assert_eq!(index.max(1), first, "{}: {name}", model.name),
                // Only a classifier's norm is unused, and buffers have none.
                None => assert!(!tensor.requires_grad() || name.starts_with("norm."), "{name}"),
            }
        }
        assert_eq!(network.stage_index("fc.weight"), None);
    }
}
