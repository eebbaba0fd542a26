//! What a training step asks of libtorch: how many operators, that none makes the
//! host wait for its device, and how much memory. In a program of its own, since
//! all of this is recorded process-wide.

use backbone::models::{self, BuildOptions};
use backbone::{DropPathDraws, Mode};
use data::rng::Rng;
use engine::allocator::peak_of_tensors;
use engine::operators::OpProfile;
use engine::optim::{Lamb, LambConfig, Optimizer as _, param_groups};
use pretrain::mask;
use pretrain::spark::{Execution, Spark};
use tch::{Device, Kind, Tensor, nn};

/// OpStats that do work in the second step, by model: forward, backward and LAMB.
/// A step that needs more has become slower where launches count; one that needs
/// fewer is to be noted here.
const LAUNCHES: [(&str, u64); 2] = [("resnet18", 1444), ("convnext_atto", 1431)];

/// The most that tensors of a forward pass take, in MB, by model. One that needs more
/// keeps what could be made again; one that needs less is to be noted here. Measured:
/// 72 and 40, or 77 and 46 with the tiles of processors without AVX-512.
const MEMORY: [(&str, f64); 2] = [("resnet50", 80.0), ("convnext_atto", 48.0)];

/// One after the other: recordings see the calls of all threads.
#[test]
fn what_is_recorded() {
    engine::allocator::keep_freed_memory();
    a_step_takes_no_more_memory_than_it_did();
    reading_a_value_back_is_a_synchronisation();
    a_step_calls_no_more_operators_than_it_did_and_waits_for_no_device();
}

fn a_step_calls_no_more_operators_than_it_did_and_waits_for_no_device() {
    let mut counts = Vec::new();
    for (name, _) in LAUNCHES {
        let mut step = step(name, [2, 3, 32, 64]);
        step(0);
        let (_, record) = OpProfile::of(|| step(1)).unwrap();
        assert_eq!(record.synchronisations(), 0, "{name}:\n{record}");
        counts.push((name, record.launches()));
    }
    let expected = LAUNCHES.map(|(name, launches)| (name, launches + tiled_convolutions()));
    assert_eq!(counts, expected);
}

/// What the decoder's largest maps take more where convolutions run in tiles: on processors without
/// AVX-512.
fn tiled_convolutions() -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        return 0;
    }
    2
}

fn a_step_takes_no_more_memory_than_it_did() {
    for (name, most) in MEMORY {
        let mut step = step(name, [8, 3, 128, 128]);
        step(0);
        let taken = step(1) as f64 / 1e6;
        assert!((0.8 * most..most).contains(&taken), "{name}: {taken:.1} MB");
    }
}

/// Recording is one at a time, and ends with what it records.
fn reading_a_value_back_is_a_synchronisation() {
    let (value, record) = OpProfile::of(|| Tensor::from(2.5f64).double_value(&[])).unwrap();
    assert_eq!((value, record.synchronisations()), (2.5, 1));
    let (nested, _) = OpProfile::of(|| OpProfile::of(|| ()).map(drop)).unwrap();
    assert!(nested.unwrap_err().to_string().contains("one at a time"));
}

/// A step's arithmetic, from the batch's arrival to the updated weights. Gives the
/// most bytes that its forward pass has taken.
fn step(name: &str, size: [i64; 4]) -> impl FnMut(u64) -> usize {
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let model = models::find(name).unwrap();
    let build = |path: &nn::Path| model.build(path, &BuildOptions::default());
    let spark = Spark::new(&store.root(), 64, build).unwrap();
    let params = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    let mut params: Vec<_> = params.collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let mut optimizer = Lamb::new(param_groups(params), LambConfig::default()).unwrap();
    let images = Tensor::randn(size, (Kind::Float, Device::Cpu));
    let grid = spark.patch_grid((size[2], size[3])).unwrap();
    move |number| {
        let _kept = &store;
        optimizer.zero_grad();
        let generators = (0..size[0] as u64).map(|image| Rng::new(0, &[number, image]));
        let keep = (grid.0 * grid.1 / 2) as usize;
        let mask = mask::draw(generators, grid, keep, Device::Cpu).unwrap();
        let mode = Mode::train().with_drop_path(DropPathDraws::Off);
        peak_of_tensors();
        let before = peak_of_tensors();
        let loss = spark.loss(&images, &mask, &mode, Execution::Packed).unwrap();
        let forward = peak_of_tensors() - before;
        loss.backward();
        optimizer.step(1e-3, 0.05);
        forward
    }
}
