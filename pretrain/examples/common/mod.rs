//! The SparK steps that the examples measure.

use anyhow::Result;
use backbone::models::{self, BuildOptions};
use engine::optim::{Lamb, LambConfig, param_groups};
use pretrain::spark::Spark;
use tch::nn;

/// Steps of which model on what.
#[derive(clap::Args)]
pub struct Steps {
    /// A registered model.
    #[arg(long, default_value = "resnet50")]
    pub model: String,
    /// Images of a step, over all processes.
    #[arg(long, default_value_t = 8)]
    pub batch: i64,
    /// Side of the images in pixels.
    #[arg(long, default_value_t = 224)]
    pub size: i64,
}

impl Steps {
    /// The model, and what updates it.
    pub fn build(&self, store: &nn::VarStore) -> Result<(Spark, Lamb)> {
        let model = models::find(&self.model)?;
        let build = |path: &nn::Path| model.build(path, &BuildOptions::default());
        let spark = Spark::new(&store.root(), 768, build)?;
        let mut params: Vec<_> =
            store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
        // In every process the same.
        params.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((spark, Lamb::new(param_groups(params), LambConfig::default())?))
    }
}
