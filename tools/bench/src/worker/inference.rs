//! A backbone's pyramid of whole images.

use anyhow::Result;
use backbone::models::{self, BuildOptions};
use backbone::weights::{self, LoadOptions};
use backbone::{FeatureMap, Mode};
use engine::device::use_threads;
use tch::{Device, Tensor, nn};

use super::{Subject, timed};
use crate::inputs::{self, IMAGES};
use crate::memory::Baseline;
use crate::protocol::{Ready, serve};

/// Which passes.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Images of a pass
    #[arg(long)]
    batch: i64,
    /// Passes of a round
    #[arg(long)]
    passes: usize,
    /// Values of each level that are compared
    #[arg(long)]
    samples: i64,
}

/// Serves passes until the input ends.
///
/// # Errors
/// The weights are missing or do not fit the model.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { subject: Subject { common, model }, batch, passes, samples } = arguments;
    use_threads(common.threads);
    let memory = Baseline::now()?;
    let model = models::find(model)?;
    let store = nn::VarStore::new(Device::Cpu);
    let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
    let network = model.build(&store.root(), &options)?;
    let file = weights::read(common.inputs.join("weights.safetensors"))?;
    let variables = store.variables().into_iter().collect();
    weights::load(&variables, model.family(), &file, &LoadOptions::default())?;
    drop(file);

    let path = common.inputs.join("images.safetensors");
    let mut tensors = weights::read(&path)?.tensors;
    let images = inputs::take(&mut tensors, IMAGES, &path)?.narrow(0, 0, *batch);
    // Channels last in memory, as the other side's.
    let images = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let images = FeatureMap::Grid(images);
    Baseline::forget_peak();
    let pass = || tch::no_grad(|| network.forward(&images, &Mode::eval()));

    let mut ready = Ready::default();
    for (level, map) in pass()?.iter().enumerate() {
        ready = ready.with(&format!("level {level}"), sampled(map.tensor(), *samples)?);
    }
    serve(ready, || {
        timed(*passes as f64, &memory, || {
            for _ in 0..*passes {
                pass()?;
            }
            Ok(())
        })
    })
}

/// As many values of a map `[N, C, H, W]` as asked for, evenly spaced.
fn sampled(map: &Tensor, samples: i64) -> Result<Vec<f64>> {
    let values = map.contiguous().flatten(0, -1);
    let step = (values.size()[0] / samples).max(1);
    let end = values.size()[0].min(step * samples);
    Ok(Vec::try_from(values.slice(0, 0, end, step).to_kind(tch::Kind::Double))?)
}
