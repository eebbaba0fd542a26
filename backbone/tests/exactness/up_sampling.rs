//! The decoder's up-sampling, alone and in its block, against libtorch's operators.

use backbone::layers::{ConvTranspose4x4, Layer as _, UpBlock};
use backbone::{FeatureMap, Mode};
use proptest::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::support::close_with_gradients;

/// In float64 with biases that are not zero.
fn randomise(store: &mut VarStore) {
    store.double();
    tch::no_grad(|| {
        for mut tensor in store.trainable_variables() {
            let _ = tensor.normal_(0.0, 0.5);
        }
    });
}

/// `torch.nn.ConvTranspose2d(kernel_size=4, stride=2, padding=1)`.
fn up_sampled(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    x.conv_transpose2d(weight, Some(bias), [2, 2], [1, 1], [0, 0], 1, [1, 1])
}

/// A 3×3 convolution and its batch norm in training.
fn conv_norm(x: &Tensor, weight: &Tensor, affine: [&Tensor; 2]) -> Tensor {
    let [gamma, beta] = affine.map(Some);
    x.conv2d::<&Tensor>(weight, None, [1], [1], [1], 1)
        .batch_norm::<&Tensor>(gamma, beta, None, None, true, 0.1, 1e-5, false)
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
        let x = Tensor::randn([images, channels, height, width], (Kind::Double, Device::Cpu))
            .set_requires_grad(true);
        let map = FeatureMap::Grid(x.shallow_clone());

        let mut store = VarStore::new(Device::Cpu);
        let up = ConvTranspose4x4::new(&store.root(), channels);
        randomise(&mut store);
        let named = store.variables();
        let (weight, bias) = (&named["weight"], &named["bias"]);
        let theirs = up_sampled(&x, weight, bias);
        let ours = up.forward(&map, &Mode::train());
        close_with_gradients(ours.tensor(), &theirs, &[&x, weight, bias]);

        let mut store = VarStore::new(Device::Cpu);
        let block = UpBlock::new(&store.root(), channels, outputs);
        randomise(&mut store);
        let named = store.variables();
        let of = |name: &str| &named[name];
        let y = up_sampled(&x, of("up_sample.weight"), of("up_sample.bias"));
        let y = conv_norm(&y, of("conv.0.weight"), [of("conv.1.weight"), of("conv.1.bias")]);
        let y = y.clamp(0.0, 6.0);
        let y = conv_norm(&y, of("conv.3.weight"), [of("conv.4.weight"), of("conv.4.bias")]);
        let ours = block.forward(&map, &Mode::train());
        let parameters = store.trainable_variables();
        let leaves: Vec<&Tensor> = [&x].into_iter().chain(&parameters).collect();
        close_with_gradients(ours.tensor(), &y, &leaves);
    }
}
