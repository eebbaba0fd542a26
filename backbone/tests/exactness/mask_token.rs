//! Convolution of visible positions among tokens, against that of the whole
//! grid.

use backbone::layers::{Conv2d, Conv2dConfig, Layer as _, fill_masked};
use backbone::{FeatureMap, Mode};
use proptest::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::support::{Case, close_with_gradients};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_convolution_among_tokens_is_that_of_the_grid(
        case in Case::any((1, 1)),
        kernel in prop_oneof![Just(1i64), Just(3), Just(5)],
    ) {
        tch::manual_seed(i64::from(case.seed));
        let (channels, outputs) = (3, 4);
        let mut store = VarStore::new(Device::Cpu);
        let config = Conv2dConfig::square(kernel).bias();
        let conv = Conv2d::new(&store.root(), channels, outputs, config);
        store.double();
        let options = (Kind::Double, Device::Cpu);
        let mask = case.mask();
        let (height, width) =
            (case.patches.0 * case.patch.0, case.patches.1 * case.patch.1);
        let grid = Tensor::randn([case.batch, channels, height, width], options);
        let grid = grid.set_requires_grad(true);
        let token = Tensor::randn([1, channels, 1, 1], options).set_requires_grad(true);
        let map = FeatureMap::patches(&grid, &mask).unwrap();

        let mode = Mode::train();
        let ours = conv.forward_with_mask_token(&map, &token, &mode);
        let theirs = conv.forward(&FeatureMap::Grid(fill_masked(&map, &token)), &mode);
        let variables = store.trainable_variables();
        let mut leaves: Vec<&Tensor> = variables.iter().collect();
        leaves.extend([&grid, &token]);
        close_with_gradients(&ours, theirs.tensor(), &leaves);
    }
}
