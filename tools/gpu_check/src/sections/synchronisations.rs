//! How often a training step waits for its device: calls of operators that read a value back or
//! need one to know the size of their result.
//!
//! They are counted in libtorch's own record of its calls, which is the same on every device.
//! Copies of whole tensors to the host and calls of CUDA's own functions are not in it.

use anyhow::Result;
use backbone::models::{self, BuildOptions};
use backbone::{DropPathDraws, Mode};
use data::rng::Rng;
use engine::operators::OpProfile;
use engine::optim::{Lamb, LambConfig, Optimizer as _, param_groups};
use pretrain::mask;
use pretrain::spark::{Execution, Spark};
use tch::{Device, Kind, Tensor, nn};

use super::{NEEDS_CUDA, Setting};
use crate::outcome::Types;
use crate::recorder::{Finding, Recorder};
use crate::report::Tolerance;

const MODELS: [&str; 3] = ["resnet18", "convnext_atto", "regnety_016"];

const NONE: Tolerance = Tolerance::new(
    0.0,
    "what is launched depends on shapes alone, which the host knows; each wait would empty the \
     device's queue",
);

/// The checks.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    engine::device::use_threads(0);
    recorder.check("a value that is read back counts", || {
        let value = Tensor::from(2.5f64).to_device(setting.device);
        let (_, record) = OpProfile::of(|| value.double_value(&[]))?;
        let off = record.synchronisations() as f64 - 1.0;
        let reason = "the record would be blind otherwise";
        Ok(Finding::apart(off.abs(), Tolerance::new(0.0, reason), "calls beyond the one"))
    });
    for model in MODELS {
        for types in [Types::Float32, Types::Bfloat16, Types::Float16] {
            let name = format!("{model}, {}", types.name());
            if types == Types::Float16 && setting.device == Device::Cpu {
                recorder.skip(&name, NEEDS_CUDA);
                continue;
            }
            recorder.check(&name, || {
                let mut step = Step::new(model, setting.device, types)?;
                // The first one makes the optimizer's state.
                step.take(0)?;
                let (taken, record) = OpProfile::of(|| step.take(1))?;
                taken?;
                Ok(Finding::Judged {
                    figure: record.synchronisations() as f64,
                    unit: "waits",
                    tolerance: NONE,
                    note: format!("of {} launches", record.launches()),
                })
            });
        }
    }
    Ok(())
}

/// A step's arithmetic, from the batch's arrival to the updated weights.
struct Step {
    spark: Spark,
    optimizer: Lamb,
    images: Tensor,
    types: Types,
    _store: nn::VarStore,
}

/// Two images of 64 × 96 pixels.
const IMAGES: [i64; 4] = [2, 3, 64, 96];

impl Step {
    fn new(model: &str, device: Device, types: Types) -> Result<Self> {
        let store = nn::VarStore::new(device);
        let model = models::find(model)?;
        let build = |path: &nn::Path| model.build(path, &BuildOptions::default());
        let spark = Spark::new(&store.root(), 64, build)?;
        let params = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
        let mut params: Vec<_> = params.collect();
        params.sort_by(|a, b| a.0.cmp(&b.0));
        let optimizer = Lamb::new(param_groups(params), LambConfig::default())?;
        let images = Tensor::randn(IMAGES, (Kind::Float, device));
        Ok(Self { spark, optimizer, images, types, _store: store })
    }

    fn take(&mut self, number: u64) -> Result<()> {
        self.optimizer.zero_grad();
        let grid = self.spark.patch_grid((IMAGES[2], IMAGES[3]))?;
        let generators = (0..IMAGES[0] as u64).map(|image| Rng::new(0, &[number, image]));
        let keep = (grid.0 * grid.1 / 2) as usize;
        let mask = mask::draw(generators, grid, keep, self.images.device())?;
        let mode =
            Mode::train().with_compute(self.types.compute()).with_drop_path(DropPathDraws::Off);
        let loss = self.spark.loss(&self.images, &mask, &mode, Execution::Packed)?;
        loss.f_backward()?;
        self.optimizer.step(1e-3, 0.05);
        Ok(())
    }
}
