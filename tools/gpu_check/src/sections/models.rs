//! Every model on the device, against the processor in float64.

use std::time::{Duration, Instant};

use anyhow::Result;
use backbone::models::{self, BuildOptions, SMALL};
use backbone::{Backbone, DropPathDraws, FeatureMap, Mode};
use pretrain::spark::{self, Spark};
use tch::Device;
use tch::nn::Path;

use super::Setting;
use super::subject::{BOTH, Judge, PACKED, Subject};
use crate::compare::{of_lengths, of_values};
use crate::outcome::{Case, Execution, Filling, Types, filled, outcome};
use crate::recorder::Recorder;
use crate::report::Tolerance;

/// In float64 a network trains as ever, with batch statistics.
const EXACT: Regime = Regime { norm_eval: false, filling: Filling { seed: 7, norms: 1.0 } };
/// In fewer bits batch norms keep to running statistics, and branches to part of what they add to:
/// those of a dozen values, and fifty blocks that each double their input, would make rounding as
/// large as what is rounded.
const FEW_BITS: Regime = Regime { norm_eval: true, filling: Filling { seed: 7, norms: 0.6 } };

/// How a network is run.
#[derive(Debug, Clone, Copy)]
struct Regime {
    norm_eval: bool,
    filling: Filling,
}

/// What single values may lose in float64.
fn exact(_: Types) -> Tolerance {
    Tolerance::new(
        1e-6,
        "batch norms of a dozen values and random weights let the rounding of sums in another \
         order grow from block to block: from 1e-16 to some 1e-13 in four, and by some digits \
         more in fifty",
    )
}

/// What the length of all outputs, or of all gradients, of a network of few blocks may lose in
/// fewer bits.
fn few_bits(types: Types) -> Tolerance {
    match types {
        Types::Float64 | Types::Float32 => Tolerance::new(
            1e-3,
            "24-bit significands, 1e-7; but a value that rounds to the other side of a ReLU's kink \
             changes a gradient wholly",
        ),
        Types::Bfloat16 => Tolerance::new(
            0.3,
            "8-bit significands, 0.4 %: about that share of the values lies so near to a ReLU's \
             kink that its gradient changes wholly, and the root of it counts: on processors 7 %",
        ),
        Types::Float16 => Tolerance::new(
            0.1,
            "11-bit significands, 0.05 %: an eighth of bfloat16's share of kinks, a third of its \
             root",
        ),
    }
}

/// The same of networks of published depths.
fn few_bits_deep(types: Types) -> Tolerance {
    let Tolerance { most, .. } = few_bits(types);
    Tolerance::new(
        3.0 * most,
        "three times what a network of few blocks may lose, since rounding adds up like a random \
         walk and the deepest have ten to fifteen times as many layers",
    )
}

/// Models that are pretrained as a whole, decoder and loss included.
const PRETRAINED: [&str; 2] = ["resnet18", "convnext_atto"];

/// The time after which no further model is begun: a section that is ended has failed.
const PATIENCE: Duration = Duration::from_secs(85);

/// The checks.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    engine::device::use_threads(0);
    let begun = Instant::now();
    let of_values = Judge { apart: of_values, tolerance: exact };
    let check = |recorder: &mut Recorder,
                 tolerance: fn(Types) -> Tolerance,
                 new: &dyn Fn(Regime) -> Subject| {
        let of_lengths = Judge { apart: of_lengths, tolerance };
        let exact = Subject { types: &[Types::Float64], ..new(EXACT) };
        exact.check(setting, recorder, of_values);
        let types = &[Types::Float32, Types::Bfloat16, Types::Float16];
        Subject { types, ..new(FEW_BITS) }.check(setting, recorder, of_lengths);
    };
    for (name, build) in SMALL {
        check(recorder, few_bits, &|regime| {
            network(name, regime, move |path| Ok(build(path, &OPTIONS)))
        });
    }
    for name in PRETRAINED {
        check(recorder, few_bits_deep, &|regime| whole(name, regime));
    }
    let mut all: Vec<&'static models::Model> = models::MODELS.iter().collect();
    // Should time run out, it does so among the largest.
    all.sort_by_key(|model| model.cost(3, 0, 224, 224).params);
    for model in all {
        if begun.elapsed() > PATIENCE {
            let why = format!("no time was left: {} s had gone by", PATIENCE.as_secs());
            recorder.skip(&model.name, why);
            continue;
        }
        check(recorder, few_bits_deep, &|regime| {
            network(&model.name, regime, |path| Ok(model.build(path, &OPTIONS)?))
        });
    }
    Ok(())
}

impl Regime {
    /// Training without drop-path.
    fn mode(self, types: Types) -> Mode {
        Mode::train()
            .with_compute(types.compute())
            .with_drop_path(DropPathDraws::Off)
            .with_norm_eval(self.norm_eval)
    }
}

/// Weights are filled in afterwards.
const OPTIONS: BuildOptions =
    BuildOptions { in_chans: 3, drop_path_rate: 0.0, uninitialised: true };

/// A network's pyramid.
fn network(
    name: &str,
    regime: Regime,
    build: impl Fn(&Path) -> Result<Box<dyn Backbone>> + 'static,
) -> Subject {
    let of = move |device: Device, types: Types, execution: Execution| {
        let fill = regime.filling;
        let (store, model) = filled(device, types, fill, |store| build(&store.root()))?;
        outcome(&store, &Case::uneven((32, 32)), (3, types), execution, |x| {
            let maps = model.forward(x, &regime.mode(types))?;
            Ok(maps.iter().map(FeatureMap::to_grid).collect())
        })
    };
    Subject { name: name.to_owned(), types: &[], executions: BOTH, of: Box::new(of) }
}

/// SparK's loss around a model: of the packed execution, against the official masked one.
fn whole(name: &'static str, regime: Regime) -> Subject {
    let of = move |device: Device, types: Types, execution: Execution| {
        let (store, spark) = filled(device, types, regime.filling, |store| {
            let model = models::find(name)?;
            Ok(Spark::new(&store.root(), 64, |path| model.build(path, &OPTIONS))?)
        })?;
        let case = Case::uneven((32, 32));
        let mask = case.mask(device)?;
        // The images themselves come as a grid, masked or not.
        outcome(&store, &case, (3, types), Execution::Grid, |images| {
            let (images, mode) = (images.tensor(), regime.mode(types));
            let execution = match execution {
                Execution::Packed => spark::Execution::Packed,
                _ => spark::Execution::MaskedDense,
            };
            Ok(vec![spark.loss(images, &mask, &mode, execution)?])
        })
    };
    let name = format!("SparK with {name}");
    Subject { name, types: &[], executions: PACKED, of: Box::new(of) }
}
