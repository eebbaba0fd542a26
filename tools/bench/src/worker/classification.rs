//! Fine-tuning steps of a classifier, as `classify train` takes them.

use anyhow::Result;
use backbone::Mode;
use backbone::models;
use backbone::weights;
use classification::classifier::{Classifier, ClassifierOptions};
use classification::losses::Loss;
use engine::distributed::Gradients;
use engine::optim::{AdamW, AdamWConfig, Optimizer as _};
use tch::{Device, Kind, Tensor};

use super::{Subject, Updates, serve_steps};
use crate::inputs::{self, IMAGES};

/// Classes of timm's networks as they are made.
const CLASSES: i64 = 1000;

/// Which steps.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    updates: Updates,
}

/// Serves steps until the input ends.
///
/// # Errors
/// The weights are missing or do not fit the model.
pub fn run(arguments: &Arguments) -> Result<()> {
    serve_steps(arguments.subject.common.threads, 1, || {
        let mut step = Step::new(arguments)?;
        Ok(move || step.take())
    })
}

/// The model, what updates it, and the one batch it sees.
struct Step {
    classifier: Classifier,
    gradients: Gradients,
    optimizer: AdamW,
    mode: Mode,
    updates: Updates,
    images: Tensor,
    targets: Tensor,
}

impl Step {
    fn new(arguments: &Arguments) -> Result<Self> {
        let Arguments { subject: Subject { common, model }, updates } = arguments;
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
            mode: updates.mode(),
            updates: *updates,
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
        self.optimizer.step(self.updates.lr, self.updates.weight_decay);
        Ok(loss.double_value(&[]))
    }
}
