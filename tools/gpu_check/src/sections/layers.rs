//! Every layer on the device, against the processor in float64.

use anyhow::Result;
use backbone::layers::{
    Activation, AvgPool2d, BatchNorm2d, Conv2d, Conv2dConfig, ConvTranspose4x4, DropPath,
    GroupNorm, Layer, LayerNorm2d, LayerScale, Linear, MaxPool2d, SqueezeExcite, UpBlock,
    global_avg_pool,
};
use backbone::{DropPathDraws, Init, Mode};
use tch::nn::Path;
use tch::{Device, Tensor};

use super::Setting;
use super::subject::{BOTH, GRID, Judge, PACKED, Subject};
use crate::compare::of_values;
use crate::outcome::{Case, Filling, Types, filled, outcome};
use crate::recorder::Recorder;
use crate::report::Tolerance;

/// Channels of the input, where nothing else is said.
const CHANNELS: i64 = 4;

const FILLING: Filling = Filling { seed: 1, norms: 1.0 };

const FLOAT64: Tolerance = Tolerance::new(
    1e-10,
    "float64 sums of some thousand terms of size one lose about 1e-13 in another order; a wrong \
     halo or statistic is off by more than 1e-3",
);
const FLOAT32: Tolerance = Tolerance::new(
    1e-4,
    "24-bit significands through layers whose norms divide by deviations well below one",
);
const BFLOAT16: Tolerance = Tolerance::new(
    0.2,
    "8-bit significands round each value by up to 0.4 %; norms, maxima of two near values and sums \
     of rounded terms make that some per cent of the largest value: on processors up to 2 % of one \
     layer, 7 % of the up-sampling block",
);
const FLOAT16: Tolerance = Tolerance::new(
    0.05,
    "11-bit significands round each value by up to 0.05 %, an eighth of bfloat16's, but a maximum \
     of two near values is another one all the same",
);

/// What each type of arithmetic may lose.
fn tolerance(types: Types) -> Tolerance {
    match types {
        Types::Float64 => FLOAT64,
        Types::Float32 => FLOAT32,
        Types::Bfloat16 => BFLOAT16,
        Types::Float16 => FLOAT16,
    }
}

/// The checks.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    engine::device::use_threads(0);
    for subject in subjects() {
        subject.check(setting, recorder, Judge { apart: of_values, tolerance });
    }
    Ok(())
}

/// Every layer, the convolutions in each way in which they are computed.
fn subjects() -> Vec<Subject> {
    let square = Conv2dConfig::square;
    let mut subjects = vec![
        conv("conv 3×3", square(3).bias()),
        conv("conv 3×3 stride 2", square(3).stride(2)),
        conv("conv 1×1 stride 2", square(1).stride(2).bias()),
        conv("conv 2×2 patchify", Conv2dConfig::patchify(2)),
        conv("conv 7×7 stride 2", square(7).stride(2)),
        conv("conv in two groups", square(3).groups(2)),
        conv("depthwise 5×5", square(5).groups(CHANNELS)),
        conv("depthwise 7×7", square(7).groups(CHANNELS).bias()),
        layer("batch norm", |path| Box::new(BatchNorm2d::new(path, CHANNELS))),
        layer("layer norm", |path| Box::new(LayerNorm2d::new(path, CHANNELS, 1e-6))),
        layer("group norm", |path| Box::new(GroupNorm::new(path, 2, CHANNELS))),
        layer("max pool", |_| Box::new(MaxPool2d::new(3, 2, 1))),
        layer("average pool", |_| Box::new(AvgPool2d::new(3, 2, 1, false))),
        layer("squeeze-excite", |path| Box::new(SqueezeExcite::new(path, CHANNELS, 2))),
        layer("linear", |path| Box::new(Linear::new(path, CHANNELS, 6, Init::Default))),
        layer("layer scale", |path| Box::new(LayerScale::new(path, CHANNELS, 0.5))),
        layer("drop-path", |_| Box::new(DropPath::new(0.4, 0))),
        wide_groups(),
        up_sampling(),
        up_block(),
        global_average(),
        mask_token(),
    ];
    let kinked = [Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.1)];
    let smooth = [Activation::Gelu, Activation::Silu, Activation::Sigmoid, Activation::HardSwish];
    let activations = kinked.into_iter().chain(smooth);
    subjects.extend(activations.map(|act| layer(&format!("{act:?}"), move |_| Box::new(act))));
    subjects
}

/// A layer of [`CHANNELS`].
fn layer(name: &str, new: impl Fn(&Path) -> Box<dyn Layer> + 'static) -> Subject {
    layer_of(name, CHANNELS, new)
}

fn layer_of(name: &str, channels: i64, new: impl Fn(&Path) -> Box<dyn Layer> + 'static) -> Subject {
    let of = move |device: Device, types: Types, execution| {
        let (store, layer) = filled(device, types, FILLING, |store| Ok(new(&store.root())))?;
        let case = Case::uneven((4, 6));
        outcome(&store, &case, (channels, types), execution, |x| {
            Ok(vec![layer.forward(x, &mode(device, types)).to_grid()])
        })
    };
    Subject { name: name.to_owned(), types: &Types::ALL, executions: BOTH, of: Box::new(of) }
}

/// Training, with drop-path's draws for two images.
fn mode(device: Device, types: Types) -> Mode {
    let draws = Tensor::from_slice(&[0.3, 0.7]).view([1, 2]).to_device(device);
    Mode::train().with_compute(types.compute()).with_drop_path(DropPathDraws::Table(draws))
}

fn conv(name: &str, config: Conv2dConfig) -> Subject {
    layer(name, move |path| Box::new(Conv2d::new(path, CHANNELS, CHANNELS, config)))
}

/// Groups so wide that each is a product of its own on processors.
fn wide_groups() -> Subject {
    let config = Conv2dConfig::square(3).groups(2);
    layer_of("conv in wide groups", 32, move |path| Box::new(Conv2d::new(path, 32, 8, config)))
}

fn up_sampling() -> Subject {
    let layer = layer("up-sampling", |path| Box::new(ConvTranspose4x4::new(path, CHANNELS)));
    Subject { executions: GRID, ..layer }
}

fn up_block() -> Subject {
    let layer = layer("up-sampling block", |path| Box::new(UpBlock::new(path, CHANNELS, 2)));
    Subject { executions: GRID, ..layer }
}

fn global_average() -> Subject {
    let of = |device, types, execution| {
        let (store, ()) = filled(device, types, FILLING, |_| Ok(()))?;
        let case = Case::uneven((4, 6));
        outcome(&store, &case, (CHANNELS, types), execution, |x| Ok(vec![global_avg_pool(x)]))
    };
    Subject {
        name: "global average pool".into(),
        types: &Types::ALL,
        executions: BOTH,
        of: Box::new(of),
    }
}

/// A convolution of visible positions among mask tokens, which is that of the grid.
fn mask_token() -> Subject {
    let of = |device, types, execution| {
        let (store, (conv, token)) = filled(device, types, FILLING, |store| {
            let path = store.root();
            let token = Init::Constant(0.0).parameter(&path, "token", &[1, CHANNELS, 1, 1]);
            let config = Conv2dConfig::square(3).bias();
            Ok((Conv2d::new(&path, CHANNELS, CHANNELS, config), token))
        })?;
        let case = Case::uneven((4, 6));
        outcome(&store, &case, (CHANNELS, types), execution, |x| {
            Ok(vec![conv.forward_with_mask_token(x, &token, &mode(device, types))])
        })
    };
    Subject {
        name: "conv among mask tokens".into(),
        types: &Types::ALL,
        executions: PACKED,
        of: Box::new(of),
    }
}
