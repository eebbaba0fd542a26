//! The decoder's up-sampling, alone and with the convolution behind it, against
//! libtorch's operators.

use backbone::layers::{Conv2d, Conv2dConfig, ConvTranspose4x4, Layer as _};
use backbone::{FeatureMap, Mode};
use proptest::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::support::close_with_gradients;

/// Both layers, in float64 with biases that are not zero.
fn layers(channels: i64, outputs: i64) -> (VarStore, ConvTranspose4x4, Conv2d) {
    let mut store = VarStore::new(Device::Cpu);
    let up = ConvTranspose4x4::new(&(store.root() / "up"), channels);
    let conv = Conv2d::new(&(store.root() / "conv"), channels, outputs, Conv2dConfig::square(3));
    store.double();
    tch::no_grad(|| {
        for (_, mut tensor) in store.variables() {
            let _ = tensor.normal_(0.0, 0.5);
        }
    });
    (store, up, conv)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Of the few positions for which there is one operator after the other,
    /// and of the many that make it one.
    #[test]
    fn up_sampling_and_the_convolution_behind_it_are_libtorchs(
        images in 1..3i64,
        (height, width) in prop_oneof![(1..5i64, 1..5i64), (11..15i64, 11..15i64)],
        (channels, outputs) in (1..7i64, 1..5i64),
        seed: u32,
    ) {
        tch::manual_seed(i64::from(seed));
        let (store, up, conv) = layers(channels, outputs);
        let named = store.variables();
        let x = Tensor::randn([images, channels, height, width], (Kind::Double, Device::Cpu))
            .set_requires_grad(true);
        let map = || FeatureMap::Grid(x.shallow_clone());
        let plain = || {
            let (weight, bias) = (&named["up.weight"], Some(&named["up.bias"]));
            x.conv_transpose2d(weight, bias, [2, 2], [1, 1], [0, 0], 1, [1, 1])
        };
        let up_alone = up.forward(&map(), &Mode::train());
        let leaves = [&x, &named["up.weight"], &named["up.bias"]];
        close_with_gradients(up_alone.tensor(), &plain(), &leaves);

        let both = up.then(&conv, map().into(), &Mode::train());
        let weight = &named["conv.weight"];
        let theirs = plain().conv2d::<&Tensor>(weight, None, [1], [1], [1], 1);
        close_with_gradients(both.tensor(), &theirs, &[&leaves[..], &[weight]].concat());
    }
}
