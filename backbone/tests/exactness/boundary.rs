//! What the public boundary refuses, and in which words.

use std::rc::Rc;

use backbone::layers::{BatchNorm2d, Layer};
use backbone::models::{BuildOptions, ResNetConfig};
use backbone::{Backbone, FeatureMap, Mode, PatchMask, models};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const CPU: Device = Device::Cpu;

fn zeros(size: &[i64]) -> Tensor {
    Tensor::zeros(size, (Kind::Float, CPU))
}

/// A small ResNet's answer to `x`: its error's text.
fn refusal(x: &FeatureMap) -> String {
    let store = VarStore::new(CPU);
    let config = ResNetConfig::plain(models::BlockKind::Basic, [1, 1, 1, 1]);
    let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
    let model = models::ResNet::new(&store.root(), &config, &options);
    model.forward(x, &Mode::eval()).unwrap_err().to_string()
}

fn mask(batch: i64, rows: i64, cols: i64, visible: &[i64]) -> Rc<PatchMask> {
    PatchMask::from_visible(batch, (rows, cols), visible, CPU).unwrap()
}

#[test]
fn backbone_inputs() {
    let grid = |size: &[i64]| refusal(&FeatureMap::Grid(zeros(size)));
    assert_eq!(grid(&[3, 64, 64]), "input is [3, 64, 64], but the backbone takes [N, 3, H, W]");
    assert_eq!(
        grid(&[1, 4, 64, 64]),
        "input is [1, 4, 64, 64], but the backbone takes [N, 3, H, W]"
    );
    let sides = "but its sides must be at least the total stride 32";
    assert_eq!(grid(&[1, 3, 64, 31]), format!("input is [1, 3, 64, 31], {sides}"));
    assert_eq!(grid(&[1, 3, 0, 64]), format!("input is [1, 3, 0, 64], {sides}"));
    let bytes = FeatureMap::Grid(zeros(&[1, 3, 64, 64]).to_kind(Kind::Uint8));
    assert_eq!(
        refusal(&bytes),
        "input's kind is Uint8, but the backbone takes floating-point images (already normalised)"
    );
}

#[test]
fn empty_batches() {
    let message = refusal(&FeatureMap::Grid(zeros(&[0, 3, 64, 64])));
    assert_eq!(message, "input is [0, 3, 64, 64], but it must hold at least one image");
}

#[test]
fn masked_backbone_inputs() {
    let fine = mask(1, 4, 4, &[0, 5]);
    let x = zeros(&[1, 3, 64, 64]);
    let patch =
        "mask patch is 16×16 pixels, but its sides must be multiples of the total stride 32";
    assert_eq!(refusal(&FeatureMap::masked(&x, &fine).unwrap()), patch);
    assert_eq!(refusal(&FeatureMap::patches(&x, &fine).unwrap()), patch);

    // Three patches of 21 and a third pixels make no whole positions; by hand,
    // since such maps are not made otherwise.
    let thirds = FeatureMap::Masked { grid: zeros(&[1, 3, 63, 63]), mask: mask(1, 3, 3, &[0]) };
    assert_eq!(
        refusal(&thirds),
        "masked input is 63×63 pixels, but its sides must be multiples of the total stride 32"
    );
    let packed = FeatureMap::Patches { packed: zeros(&[3, 3, 32, 32]), mask: Rc::clone(&fine) };
    assert_eq!(
        refusal(&packed),
        "masked input is [3, 3, 32, 32], but it must be the map that PatchMask(2 visible of \
         1×4×4) was made for"
    );
    for size in [[2, 3, 128, 128], [1, 3, 128, 160]] {
        let mask = mask(1, 4, 4, &[0]);
        let message = refusal(&FeatureMap::Masked { grid: zeros(&size), mask });
        if size[0] == 2 {
            assert!(message.starts_with("masked input is [2, 3, 128, 128], but"), "{message}");
        } else {
            assert_eq!(
                message,
                "mask patch is 32×40 pixels, but its sides must be multiples of the total stride \
                 32"
            );
        }
    }
}

#[test]
fn maps_and_masks_that_do_not_fit() {
    let mask = mask(2, 3, 2, &[0, 7]);
    for size in [vec![1, 3, 6, 6], vec![2, 3, 7, 6], vec![2, 3, 6, 5], vec![2, 3, 0, 6], vec![2, 6]]
    {
        let expected = format!(
            "input is {size:?}, but it must be [N, C, H, W] with N = 2 and sides that are \
             multiples of the mask's 3×2 patches"
        );
        for map in [FeatureMap::patches, FeatureMap::masked] {
            assert_eq!(map(&zeros(&size), &mask).unwrap_err().to_string(), expected);
        }
    }
}

#[test]
fn visible_indices() {
    let refusal =
        |visible: &[i64]| PatchMask::from_visible(2, (2, 2), visible, CPU).unwrap_err().to_string();
    let rule = "but at least one patch must be visible and indices must ascend within 0..8 (2 \
                images of 2×2 patches)";
    assert_eq!(refusal(&[]), format!("visible is 0 indices beginning with [], {rule}"));
    assert_eq!(refusal(&[1, 1]), format!("visible is 2 indices beginning with [1, 1], {rule}"));
    assert_eq!(refusal(&[3, 2]), format!("visible is 2 indices beginning with [3, 2], {rule}"));
    assert_eq!(refusal(&[-1, 2]), format!("visible is 2 indices beginning with [-1, 2], {rule}"));
    assert_eq!(
        refusal(&[0, 1, 2, 3, 8]),
        format!("visible is 5 indices beginning with [0, 1, 2, 3], {rule}")
    );
}

#[test]
fn mask_sizes() {
    for (batch, patches) in [(0, (1, 1)), (-1, (-1, 1)), (1, (0, 3)), (2, (i64::MAX, 1))] {
        let expected = format!(
            "mask size is {batch}×{}×{} patches, but all three must be positive and their \
             product must fit 64 bits",
            patches.0, patches.1
        );
        let visible = PatchMask::from_visible(batch, patches, &[0], CPU).unwrap_err();
        assert_eq!(visible.to_string(), expected);
        let all = PatchMask::all_visible(batch, patches, CPU).unwrap_err();
        assert_eq!(all.to_string(), expected);
    }
}

#[test]
fn active_flags() {
    let refusal = |active: &Tensor| PatchMask::from_active(active).unwrap_err().to_string();
    let rule = "but it must be Bool [N, 1, rows, cols]";
    assert_eq!(refusal(&zeros(&[2, 1, 2, 2])), format!("active is Float [2, 1, 2, 2], {rule}"));
    let flags = |size: &[i64]| zeros(size).to_kind(Kind::Bool);
    assert_eq!(refusal(&flags(&[2, 2, 2, 2])), format!("active is Bool [2, 2, 2, 2], {rule}"));
    assert_eq!(refusal(&flags(&[2, 2, 2])), format!("active is Bool [2, 2, 2], {rule}"));
    assert!(refusal(&flags(&[2, 1, 2, 2])).contains("at least one patch must be visible"));
    assert!(refusal(&flags(&[0, 1, 2, 2])).contains("mask size is 0×2×2 patches"));
}

/// A mask from flags and one from indices are the same.
#[test]
fn flags_and_indices_agree() {
    let mut flags = vec![false; 12];
    for index in [1, 4, 11] {
        flags[index] = true;
    }
    let from_flags =
        PatchMask::from_active(&Tensor::from_slice(&flags).view([2, 1, 2, 3])).unwrap();
    let from_indices = mask(2, 2, 3, &[1, 4, 11]);
    assert_eq!(from_flags.active((2, 1)), from_indices.active((2, 1)));
    assert_eq!(from_flags.patches(), (2, 3));
    assert_eq!(from_flags.batch(), 2);
}

/// One value a channel has no unbiased variance: refused before any statistic changes, where
/// PyTorch's `F.batch_norm` raises "Expected more than 1 value per channel when training".
#[test]
fn batch_norms_need_more_than_one_value() {
    let store = VarStore::new(CPU);
    let config = ResNetConfig::plain(models::BlockKind::Basic, [1, 1, 1, 1]);
    let model = models::ResNet::new(&store.root(), &config, &BuildOptions::default());
    let counter = || store.variables()["bn1.num_batches_tracked"].int64_value(&[]);
    let grid = |size: &[i64]| FeatureMap::Grid(zeros(size));
    let packed = |visible: &[i64]| {
        FeatureMap::patches(&zeros(&[1, 3, 64, 64]), &mask(1, 2, 2, visible)).unwrap()
    };
    let masked = |visible: &[i64]| {
        FeatureMap::masked(&zeros(&[1, 3, 64, 64]), &mask(1, 2, 2, visible)).unwrap()
    };
    for (x, size) in [
        (grid(&[1, 3, 32, 32]), "[1, 3, 32, 32]"),
        (packed(&[3]), "[1, 3, 32, 32]"),
        (masked(&[3]), "[1, 3, 64, 64]"),
    ] {
        let message = model.forward(&x, &Mode::train()).unwrap_err().to_string();
        assert_eq!(
            message,
            format!(
                "input is {size}, but batch norm expected more than 1 value per channel when \
                 training, got input size [1, 512, 1, 1]: give more or larger images, or run the \
                 norms on their running statistics"
            )
        );
        assert_eq!(counter(), 0, "a statistic changed");
    }
    let fine = [
        (grid(&[2, 3, 32, 32]), Mode::train()),
        (grid(&[1, 3, 33, 32]), Mode::train()),
        (packed(&[0, 3]), Mode::train()),
        (masked(&[0, 3]), Mode::train()),
        (grid(&[1, 3, 32, 32]), Mode::train().with_stages(3)),
        (grid(&[1, 3, 32, 32]), Mode::train().with_freeze_at(5)),
        (grid(&[1, 3, 32, 32]), Mode::train().with_norm_eval(true)),
        (grid(&[1, 3, 32, 32]), Mode::eval()),
    ];
    for (x, mode) in fine {
        model.forward(&x, &mode).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
    }
    for (name, tensor) in store.variables() {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 1, "{name}");
    }
}

/// A network of one's own meets the norm itself, which refuses too.
#[test]
#[should_panic(
    expected = "more than 1 value per channel when training, got input size [1, 4, 1, 1]"
)]
fn a_batch_norm_refuses_one_value() {
    let store = VarStore::new(CPU);
    let norm = BatchNorm2d::new(&store.root(), 4);
    norm.forward(&FeatureMap::Grid(zeros(&[1, 4, 1, 1])), &Mode::train());
}
