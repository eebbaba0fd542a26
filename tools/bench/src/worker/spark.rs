//! SparK's training steps, as `pretrain train` takes them.

use anyhow::{Context, Result};
use backbone::models::{self, Family, Model};
use backbone::{DropPathDraws, Mode, PatchMask, Size};
use engine::device::use_threads;
use engine::distributed::Gradients;
use engine::optim::{Lamb, LambConfig, Optimizer as _, param_groups};
use engine::precision::Precision;

use pretrain::spark::{Execution, Spark};
use tch::{Device, Tensor, nn};

use super::{Subject, timed};
use crate::inputs::spark::{ACTIVE, build, load_weights};
use crate::inputs::{self, IMAGES, SparkInputs};
use crate::memory::Baseline;
use crate::protocol::{Ready, serve};

/// Which steps.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Run timm's network of that name, whose `.pt2` file lies beside the inputs
    #[arg(long)]
    exported: bool,
    /// Arithmetic of convolutions and linear layers
    #[arg(long, value_enum, default_value = "float32")]
    precision: Precision,
    /// Learning rate
    #[arg(long)]
    lr: f64,
    /// Weight decay
    #[arg(long)]
    weight_decay: f64,
    /// Steps of a round
    #[arg(long)]
    steps: usize,
}

/// Serves steps until the input ends.
///
/// # Errors
/// The inputs are missing or do not fit the model.
pub fn run(arguments: &Arguments) -> Result<()> {
    use_threads(arguments.subject.common.threads);
    let memory = Baseline::now()?;
    let mut step = Step::new(arguments)?;
    Baseline::forget_peak();
    // The second shows whether gradients and optimizer agree, too.
    let losses = vec![step.take()?, step.take()?];
    serve(Ready::default().with("loss", losses), || {
        timed(arguments.steps as f64, &memory, || {
            (0..arguments.steps).try_for_each(|_| step.take().map(drop))
        })
    })
}

/// The model, what updates it, and the one batch it sees.
struct Step {
    spark: Spark,
    gradients: Gradients,
    optimizer: Lamb,
    precision: Precision,
    lr: f64,
    weight_decay: f64,
    images: Tensor,
    /// Visible patches, and how they count.
    visible: Vec<i64>,
    grid: Size,
    _store: nn::VarStore,
}

impl Step {
    fn new(arguments: &Arguments) -> Result<Self> {
        let Arguments { subject, exported, precision, lr, weight_decay, .. } = arguments;
        let Subject { common, model } = subject;
        let path = &common.inputs;
        let family = models::registered(model).ok().flatten().map(Model::family);
        let store = nn::VarStore::new(Device::Cpu);
        let spark = match exported {
            true => build(&SparkInputs::pt2(path).display().to_string(), &store)?,
            false => build(model, &store)?,
        };
        let mut tensors = backbone::weights::read(path)?.tensors;
        load_weights(&store, &mut tensors, path, family.filter(|_| *exported))?;
        let images = inputs::take(&mut tensors, IMAGES, path)?;
        let active = inputs::take(&mut tensors, ACTIVE, path)?;
        let &[_, _, rows, columns] = active.size().as_slice() else {
            anyhow::bail!(
                "{ACTIVE} is of shape {:?}, but it must be [N, 1, rows, columns]",
                active.size()
            )
        };
        let flags = Vec::<bool>::try_from(active.reshape([-1])).context("reading the mask")?;
        let visible = (0..).zip(flags).filter(|(_, on)| *on).map(|(index, _)| index).collect();
        Ok(Self {
            spark,
            gradients: Gradients::alone(),
            optimizer: optimizer(family, &store)?,
            precision: *precision,
            lr: *lr,
            weight_decay: *weight_decay,
            images,
            visible,
            grid: (rows, columns),
            _store: store,
        })
    }

    /// One step, as `pretrain`'s `Trainer::step` takes it on one process; its loss.
    fn take(&mut self) -> Result<f64> {
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let batch = self.images.size()[0];
        let mask = PatchMask::from_visible(batch, self.grid, &self.visible, Device::Cpu)?;
        let mode = Mode::train()
            .with_compute(self.precision.compute())
            .with_bf16_weight_grads(true)
            .with_drop_path(DropPathDraws::Off);
        let loss = self.spark.loss(&self.images, &mask, &mode, Execution::Packed)?;
        self.gradients.backward(&loss, true)?;
        self.optimizer.step(self.lr, self.weight_decay);
        Ok(loss.double_value(&[]))
    }
}

/// LAMB with the official settings of the model's family.
fn optimizer(family: Option<Family>, store: &nn::VarStore) -> Result<Lamb> {
    let mut params: Vec<_> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let betas = (0.9, if family == Some(Family::ConvNeXt) { 0.999 } else { 0.95 });
    Ok(Lamb::new(param_groups(params), LambConfig { betas, ..LambConfig::default() })?)
}
