//! SparK's training steps.

use anyhow::Result;
use tch::Device;

use super::{Subject, Updates, serve_steps};
use crate::inputs::spark::Step;

/// Which steps.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Run timm's network of that name, whose `.pt2` file lies beside the inputs
    #[arg(long)]
    exported: bool,
    #[command(flatten)]
    updates: Updates,
    /// Steps of a round
    #[arg(long)]
    steps: usize,
}

/// Serves steps until the input ends.
///
/// # Errors
/// The inputs are missing or do not fit the model.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { subject: Subject { common, model }, exported, updates, steps } = arguments;
    serve_steps(common.threads, *steps, || {
        let mut step = Step::new(model, *exported, &common.inputs, Device::Cpu, *updates)?;
        Ok(move || step.take())
    })
}
