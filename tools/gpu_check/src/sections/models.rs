//! Every model on the device, against the processor in float64.

use std::time::{Duration, Instant};

use anyhow::Result;
use backbone::models::{
    self, BlockKind, BuildOptions, ConvNeXt, ConvNeXtConfig, RegNet, RegNetConfig, ResNet,
    ResNetConfig,
};
use backbone::{Backbone, DropPathDraws, FeatureMap, Mode};
use pretrain::spark::{self, Spark};
use tch::Device;
use tch::nn::Path;

use super::Setting;
use super::subject::{BOTH, Judge, PACKED, Subject};
use crate::compare::{of_lengths, of_values};
use crate::outcome::{Case, Execution, Types, filled, outcome};
use crate::recorder::Recorder;
use crate::report::Tolerance;

/// What a network of few blocks may lose, value by value.
fn shallow(types: Types) -> Tolerance {
    match types {
        Types::Float64 => Tolerance::new(
            1e-9,
            "batch norms amplify the rounding of float64 sums in another order from block to \
             block, to some 1e-12 of a tensor's largest value",
        ),
        Types::Float32 => Tolerance::new(
            1e-2,
            "the same of 24-bit significands, which are 10⁹ times coarser than float64's 53",
        ),
        Types::Bfloat16 => Tolerance::new(
            1.0,
            "8-bit significands through some ten layers: batch norms of a dozen values turn 0.4 % \
             a layer into most of the largest value of single gradients; no number and infinity \
             fail",
        ),
        Types::Float16 => Tolerance::new(
            0.3,
            "11-bit significands, eight times finer than bfloat16's, through the same layers",
        ),
    }
}

/// What a network of its published depth may lose, in the length of all outputs or gradients.
fn deep(types: Types) -> Tolerance {
    match types {
        Types::Float64 => Tolerance::new(
            1e-6,
            "random weights let rounding grow with every block, by up to a digit in four blocks: \
             fifty blocks leave seven of float64's sixteen digits in the worst network",
        ),
        Types::Float32 => Tolerance::new(
            1.0,
            "float32 has seven digits, which the same growth uses up in the deepest networks: \
             here it is told that nothing overflows, and the figure how far it went",
        ),
        Types::Bfloat16 => Tolerance::new(
            2.0,
            "two unrelated vectors of one length are 1.4 apart, which is where 8 bits lead in the \
             deepest networks: only what overflows or explodes is beyond",
        ),
        Types::Float16 => Tolerance::new(
            2.0,
            "as of bfloat16, with three bits more and a range that ends at 65504",
        ),
    }
}

type Build = fn(&Path, &BuildOptions) -> Box<dyn Backbone>;

/// Networks of few blocks, one of each kind.
const SMALL: [(&str, Build); 6] = [
    ("basic blocks", |path, options| {
        Box::new(ResNet::new(path, &ResNetConfig::plain(BlockKind::Basic, [1; 4]), options))
    }),
    ("bottlenecks", |path, options| {
        Box::new(ResNet::new(path, &ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]), options))
    }),
    ("grouped bottlenecks", |path, options| {
        let config = ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]).grouped(8, 4);
        Box::new(ResNet::new(path, &config, options))
    }),
    ("wide bottlenecks", |path, options| {
        let config = ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]).grouped(1, 96);
        Box::new(ResNet::new(path, &config, options))
    }),
    ("ConvNeXt blocks", |path, options| {
        Box::new(ConvNeXt::new(path, &ConvNeXtConfig::doubling([1, 1, 2, 1], 12), options))
    }),
    ("RegNet blocks", |path, options| {
        let config =
            RegNetConfig { depths: [1, 2, 1, 1], widths: [16, 24, 32, 48], group_width: 8 };
        Box::new(RegNet::new(path, &config, options))
    }),
];

/// Models that are pretrained as a whole, decoder and loss included.
const PRETRAINED: [&str; 2] = ["resnet18", "convnext_atto"];

/// The time after which no further model is begun on a processor, where this is only tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// The checks.
///
/// # Errors
/// None: what fails is a failed check.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    engine::device::use_threads(0);
    let begun = Instant::now();
    for (name, build) in SMALL {
        let subject = network(name.to_owned(), move |path, options| Ok(build(path, options)));
        subject.check(setting, recorder, Judge { apart: of_values, tolerance: shallow });
    }
    for name in PRETRAINED {
        whole(name).check(setting, recorder, Judge { apart: of_lengths, tolerance: deep });
    }
    let mut all: Vec<&models::Model> = models::MODELS.iter().collect();
    // Should time run out, it does so among the largest.
    all.sort_by_key(|model| model.cost(3, 0, 224, 224).params);
    for model in all {
        if setting.device == Device::Cpu && begun.elapsed() > PATIENCE {
            recorder.skip(model.name, "on processors only so many are tried as take a minute");
            continue;
        }
        let subject =
            network(model.name.to_owned(), |path, options| Ok(model.build(path, options)?));
        subject.check(setting, recorder, Judge { apart: of_lengths, tolerance: deep });
    }
    Ok(())
}

/// Training without drop-path.
fn mode(types: Types) -> Mode {
    Mode::train().with_compute(types.compute()).with_drop_path(DropPathDraws::Off)
}

/// Weights are filled in afterwards.
const OPTIONS: BuildOptions =
    BuildOptions { in_chans: 3, drop_path_rate: 0.0, uninitialised: true };

/// A network's pyramid.
fn network(
    name: String,
    build: impl Fn(&Path, &BuildOptions) -> Result<Box<dyn Backbone>> + 'static,
) -> Subject {
    let of = move |device: Device, types: Types, execution: Execution| {
        let (store, model) = filled(device, types, 7, |store| build(&store.root(), &OPTIONS))?;
        outcome(&store, &Case::uneven((32, 32)), (3, types), execution, |x| {
            let maps = model.forward(x, &mode(types))?;
            Ok(maps.iter().map(FeatureMap::to_grid).collect())
        })
    };
    Subject { name, executions: BOTH, of: Box::new(of) }
}

/// SparK's loss around a model: of the packed execution, against the official masked one.
fn whole(name: &'static str) -> Subject {
    let of = move |device: Device, types: Types, execution: Execution| {
        let (store, spark) = filled(device, types, 7, |store| {
            let model = models::find(name)?;
            Ok(Spark::new(&store.root(), 64, |path| model.build(path, &OPTIONS))?)
        })?;
        let case = Case::uneven((32, 32));
        let mask = case.mask(device)?;
        // The images themselves come as a grid, masked or not.
        outcome(&store, &case, (3, types), Execution::Grid, |images| {
            let (images, mode) = (images.tensor(), mode(types));
            let loss = match execution {
                Execution::Packed => spark.loss(images, &mask, &mode)?,
                _ => spark.forward(images, &mask, &mode, spark::Execution::MaskedDense)?.loss,
            };
            Ok(vec![loss])
        })
    };
    Subject { name: format!("SparK with {name}"), executions: PACKED, of: Box::new(of) }
}
