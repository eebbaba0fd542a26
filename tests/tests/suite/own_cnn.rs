//! The example of a reader's own network: pretrained as it stands, and exact
//! on visible patches.

#[path = "../../../pretrain/examples/own_cnn/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Mutex;

use backbone::{DropPathDraws, Mode, PatchMask};
use network::OwnCnn;
use pretrain::spark::{Execution, Spark, SparkOutput};
use tch::{Device, Kind, Tensor, nn};

/// Float64 sums in another order, through some twenty layers with batch norms.
const FLOAT64: f64 = 1e-10;

const SIZE: (i64, i64) = (64, 96);

/// libtorch's generator is one for all threads: tests that draw weights take
/// turns.
static GENERATOR: Mutex<()> = Mutex::new(());

fn spark(seed: i64) -> (nn::VarStore, Spark) {
    let _turn = GENERATOR.lock();
    tch::manual_seed(seed);
    let store = nn::VarStore::new(Device::Cpu);
    let spark = Spark::new(&store.root(), 64, |path| Ok(Box::new(OwnCnn::new(path)))).unwrap();
    (store, spark)
}

/// Waves of some directions and lengths, different in every image and colour.
fn waves(batch: i64) -> Tensor {
    let along = |length: i64| Tensor::arange(length, (Kind::Float, Device::Cpu));
    let (y, x) = (along(SIZE.0).view([-1, 1]), along(SIZE.1).view([1, -1]));
    let wave = |index: i64| {
        let (fast, slow) = (0.05 + 0.013 * index as f64, 0.21 - 0.011 * index as f64);
        (&y * fast + &x * slow).sin() + (&x * fast - &y * 0.5 * slow).cos()
    };
    let images: Vec<Tensor> = (0..batch * 3).map(wave).collect();
    Tensor::stack(&images, 0).view([batch, 3, SIZE.0, SIZE.1])
}

/// Every third patch of 16 pixels visible, and two more in the second image.
fn mask() -> Rc<PatchMask> {
    let mut visible: Vec<i64> = (0..48).filter(|index| index % 3 == 0).collect();
    visible.extend([25, 47]);
    visible.sort_unstable();
    PatchMask::from_visible(2, (4, 6), &visible, Device::Cpu).unwrap()
}

#[test]
fn pretraining_lowers_the_loss() {
    let (store, spark) = spark(0);
    assert_eq!(spark.patch_grid(SIZE).unwrap(), (4, 6));
    let (images, mask) = (waves(2), mask());
    let mode = Mode::train().with_drop_path(DropPathDraws::Off);
    let mut losses = Vec::new();
    for _ in 0..40 {
        let pass = spark.forward(&images, &mask, &mode, Execution::Packed).unwrap();
        losses.push(pass.loss.double_value(&[]));
        pass.loss.backward();
        // Plain gradient descent.
        tch::no_grad(|| {
            for mut parameter in store.trainable_variables() {
                let mut gradient = parameter.grad();
                let _ = parameter.g_sub_(&(&gradient * 0.05));
                let _ = gradient.zero_();
            }
        });
    }
    // Patches have mean 0 and variance 1: a model that has learned nothing yet
    // scores about 1.
    assert!((losses[0] - 1.0).abs() < 0.3, "the first loss is {}", losses[0]);
    // Single steps of plain descent go up and down; their mean does not.
    let last = losses[30..].iter().sum::<f64>() / 10.0;
    assert!(last < 0.8 * losses[0], "{losses:.3?}");
}

#[test]
fn packed_equals_masked_dense() {
    let (mut store, spark) = spark(1);
    store.double();
    let (images, mask) = (waves(2).to_kind(Kind::Double), mask());
    let mode = || {
        let draws = Tensor::from_slice(&[0.05, 0.9]).repeat([6, 1]);
        Mode::train().with_drop_path(DropPathDraws::Table(draws))
    };
    let parameters: BTreeMap<String, Tensor> =
        store.variables().into_iter().filter(|(_, variable)| variable.requires_grad()).collect();
    let run = |execution| {
        let SparkOutput { features, prediction, loss } =
            spark.forward(&images, &mask, &mode(), execution).unwrap();
        loss.backward();
        let mut results: Vec<(String, Tensor)> =
            features.iter().map(|map| ("feature".to_owned(), map.to_grid())).collect();
        results.push(("prediction".to_owned(), prediction));
        for (name, parameter) in &parameters {
            let mut gradient = parameter.grad();
            results.push((name.clone(), gradient.copy()));
            let _ = gradient.zero_();
        }
        results
    };
    let (packed, masked) = (run(Execution::Packed), run(Execution::MaskedDense));
    for ((name, packed), (_, masked)) in packed.iter().zip(&masked) {
        let largest = masked.abs().max().double_value(&[]);
        let difference = (packed - masked).abs().max().double_value(&[]);
        assert!(
            difference <= FLOAT64 * largest.max(1e-3),
            "{name}: differs by {difference:.2e} where values reach {largest:.2e}"
        );
    }
}
