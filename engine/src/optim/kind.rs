//! The optimizers by name, and how gradients are clipped.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    AdamWConfig, BucketedOptimizer, Clip, LambConfig, LionConfig, Optimizer, ParamGroup, SgdConfig,
    UpdateRule,
};
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
    /// Lion.
    Lion,
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
        match self {
            Self::Lion => 0.99,
            _ => 0.999,
        }
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
        let (betas, momentum) = (settings.betas(), settings.beta1);
        let clip = clip(settings);
        match settings.optimizer {
            Self::Lamb => boxed(groups, LambConfig { betas, clip, ..lamb }),
            Self::Adamw => boxed(groups, AdamWConfig { betas, clip, ..AdamWConfig::default() }),
            Self::Sgd => boxed(groups, SgdConfig { momentum, clip, ..SgdConfig::default() }),
            Self::Lion => boxed(groups, LionConfig { betas, clip }),
        }
    }
}

/// The clipping of `settings`, where 0 is none.
fn clip(settings: &OptimSettings) -> Option<Clip> {
    let bound = settings.clip_grad;
    (bound != 0.0).then_some(match settings.clip_mode {
        ClipMode::Norm => Clip::Norm(bound),
        ClipMode::Value => Clip::Value(bound),
    })
}

fn boxed<const S: usize, R: UpdateRule<S> + 'static>(
    groups: Vec<ParamGroup>,
    rule: R,
) -> Result<Box<dyn Optimizer>> {
    Ok(Box::new(BucketedOptimizer::new(groups, rule)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// How far two values move in the first step at a learning rate of 1, with gradients 3 and 4.
    fn first_step(settings: &OptimSettings) -> [f64; 2] {
        let param = Tensor::zeros([2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let params = vec![("a.bias".to_owned(), param.shallow_clone())];
        let groups = vec![ParamGroup { params, lr_scale: 1.0, weight_decay_scale: 0.0 }];
        let mut optimizer = OptimizerKind::build(settings, groups, LambConfig::default()).unwrap();
        (&param * Tensor::from_slice(&[3.0, 4.0])).sum(Kind::Double).backward();
        let norm = optimizer.step(1.0, 0.0).grad_norm.double_value(&[]);
        assert_eq!(norm, 5.0, "the norm is that before clipping");
        [0, 1].map(|i| -param.double_value(&[i]))
    }

    #[test]
    fn every_optimizer_takes_its_settings() {
        use OptimizerKind::{Adamw, Lamb, Lion, Sgd};
        let settings = |optimizer, clip_grad, clip_mode| OptimSettings {
            optimizer,
            clip_grad,
            clip_mode,
            beta1: 0.5,
            ..OptimSettings::default()
        };
        // Nesterov's first step is the gradient times 1 + momentum.
        let sgd = |clip_grad, mode| first_step(&settings(Sgd, clip_grad, mode)).map(|x| x / 1.5);
        let close = |[a, b]: [f64; 2], [c, d]: [f64; 2]| {
            assert!((a - c).abs() < 1e-5 && (b - d).abs() < 1e-5, "[{a}, {b}] is not [{c}, {d}]");
        };
        close(sgd(0.0, ClipMode::Norm), [3.0, 4.0]);
        close(sgd(2.5, ClipMode::Norm), [1.5, 2.0]);
        close(sgd(3.5, ClipMode::Value), [3.0, 3.5]);
        for kind in [Lamb, Adamw, Lion] {
            close(first_step(&settings(kind, 2.5, ClipMode::Value)), [1.0, 1.0]);
        }
    }

    #[test]
    fn the_second_beta_is_the_optimizers_own_unless_set() {
        let betas = |optimizer, beta2| {
            OptimSettings { optimizer, beta2, ..OptimSettings::default() }.betas()
        };
        assert_eq!(betas(OptimizerKind::Lion, None), LionConfig::default().betas);
        assert_eq!(betas(OptimizerKind::Adamw, None), AdamWConfig::default().betas);
        assert_eq!(betas(OptimizerKind::Lion, Some(0.95)), (0.9, 0.95));
    }
}
