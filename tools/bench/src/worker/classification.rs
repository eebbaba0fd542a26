//! Fine-tuning steps of a classifier, as `classify train` takes them.

use anyhow::Result;
use backbone::models;
use backbone::weights;
use backbone::{DropPathDraws, Mode};
use classification::classifier::{Classifier, ClassifierOptions};
use classification::losses::Loss;
use engine::device::use_threads;
use engine::distributed::Gradients;
use engine::optim::{AdamW, AdamWConfig, Optimizer as _};
use engine::precision::Precision;
use tch::{Device, Kind, Tensor};

use super::{Subject, timed};
use crate::inputs::{self, IMAGES};
use crate::memory::Baseline;
use crate::protocol::{Ready, serve};

/// Classes of timm's networks as they are made.
const CLASSES: i64 = 1000;

/// Which steps.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Arithmetic of convolutions and linear layers
    #[arg(long, value_enum, default_value = "float32")]
    precision: Precision,
    /// Learning rate
    #[arg(long)]
    lr: f64,
    /// Weight decay
    #[arg(long)]
    weight_decay: f64,
}

/// Serves steps until the input ends.
///
/// # Errors
/// The weights are missing or do not fit the model.
pub fn run(arguments: &Arguments) -> Result<()> {
    use_threads(arguments.subject.common.threads);
    let memory = Baseline::now()?;
    let mut step = Step::new(arguments)?;
    Baseline::forget_peak();
    // The second shows whether gradients and optimizer agree, too.
    let losses = vec![step.take()?, step.take()?];
    serve(Ready::default().with("loss", losses), || timed(1.0, &memory, || step.take().map(drop)))
}

/// The model, what updates it, and the one batch it sees.
struct Step {
    classifier: Classifier,
    gradients: Gradients,
    optimizer: AdamW,
    mode: Mode,
    lr: f64,
    weight_decay: f64,
    images: Tensor,
    targets: Tensor,
}

impl Step {
    fn new(arguments: &Arguments) -> Result<Self> {
        let Arguments { subject: Subject { common, model }, precision, lr, weight_decay } =
            arguments;
        let options = ClassifierOptions { uninitialised: true, ..ClassifierOptions::new(CLASSES) };
        let classifier = Classifier::build(&models::find(model)?, &options, Device::Cpu)?;
        classifier.load(&weights::read(common.inputs.join("weights.safetensors"))?)?;
        let path = common.inputs.join("images.safetensors");
        let images = inputs::take(&mut weights::read(&path)?.tensors, IMAGES, &path)?;
        // One class an image, the same on the other side.
        let labels = Tensor::arange(images.size()[0], (Kind::Int64, Device::Cpu));
        let groups = classifier.param_groups(1.0);
        Ok(Self {
            classifier,
            gradients: Gradients::alone(),
            optimizer: AdamW::new(groups, AdamWConfig { clip: None, ..AdamWConfig::default() })?,
            mode: Mode::train()
                .with_compute(precision.compute())
                .with_bf16_weight_grads(true)
                .with_drop_path(DropPathDraws::Off),
            lr: *lr,
            weight_decay: *weight_decay,
            images,
            targets: labels.one_hot(CLASSES),
        })
    }

    /// One step, as `Trainer::step` takes it on one process; its loss.
    fn take(&mut self) -> Result<f64> {
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let logits = self.classifier.forward(&self.images, &self.mode)?;
        let loss = Loss::CrossEntropy.of(&logits, &self.targets);
        self.gradients.backward(&loss, true)?;
        self.optimizer.step(self.lr, self.weight_decay);
        Ok(loss.double_value(&[]))
    }
}
