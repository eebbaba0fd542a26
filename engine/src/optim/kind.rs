//! The optimizers by name, and how gradients are clipped.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Lamb, LambConfig, Optimizer, ParamGroup, Sgd, SgdConfig};
use crate::Result;
use crate::settings::OptimSettings;

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// LAMB: the paper's.
    Lamb,
    /// AdamW.
    Adamw,
    /// SGD with Nesterov momentum.
    Sgd,
}

/// What of the gradients is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClipMode {
    /// The norm of all gradients together.
    Norm,
    /// Each value.
    Value,
}

impl OptimizerKind {
    /// The second beta where none is set.
    pub fn beta2(self) -> f64 {
        0.999
    }

    /// The optimizer with `settings`, for `groups`; LAMB in the variant of `lamb`, whose betas and
    /// clipping are the settings'.
    ///
    /// # Errors
    /// Settings out of range, or parameters that cannot be trained.
    pub fn build(
        settings: &OptimSettings,
        groups: Vec<ParamGroup>,
        lamb: LambConfig,
    ) -> Result<Box<dyn Optimizer>> {
        let betas = settings.betas();
        let max_grad_norm = (settings.clip_grad > 0.0).then_some(settings.clip_grad);
        Ok(match settings.optimizer {
            Self::Lamb => Box::new(Lamb::new(groups, LambConfig { betas, max_grad_norm, ..lamb })?),
            Self::Adamw => {
                let config = AdamWConfig { betas, max_grad_norm, ..AdamWConfig::default() };
                Box::new(AdamW::new(groups, config)?)
            }
            Self::Sgd => {
                let config = SgdConfig { momentum: betas.0, max_grad_norm, ..SgdConfig::default() };
                Box::new(Sgd::new(groups, config)?)
            }
        })
    }
}
