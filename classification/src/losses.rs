//! Losses on soft targets: what Mixup, CutMix and label smoothing leave of a
//! class.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Every class by itself, yes or no (timm's `BinaryCrossEntropy`): the
    /// official choice with LAMB.
    Bce,
    /// The classes against each other (timm's `SoftTargetCrossEntropy`): the
    /// official choice with AdamW.
    CrossEntropy,
}

impl Loss {
    /// The mean loss of `logits` `[N, classes]` for `targets` of the same shape,
    /// each row of which sums to 1. In float32 or wider whatever the logits'
    /// type.
    pub fn of(self, logits: &Tensor, targets: &Tensor) -> Tensor {
        let wide = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let (logits, targets) = (logits.to_kind(wide), targets.to_kind(wide));
        match self {
            Self::Bce => {
                let none: Option<&Tensor> = None;
                let mean = tch::Reduction::Mean;
                logits.binary_cross_entropy_with_logits(&targets, none, none, mean)
            }
            Self::CrossEntropy => {
                let entropy = -targets * logits.log_softmax(1, None);
                entropy.sum_dim_intlist([1i64].as_slice(), false, None).mean(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_worked_out_by_hand() {
        let logits = Tensor::from_slice(&[0.0, 3f64.ln()]).view([1, 2]);
        let targets = Tensor::from_slice(&[0.25, 0.75f64]).view([1, 2]);
        // Softmax (¼, ¾); sigmoids (½, ¾).
        let entropy = -(0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
        let found = Loss::CrossEntropy.of(&logits, &targets).double_value(&[]);
        assert!((found - entropy).abs() < 1e-15, "{found}");
        let bce = (2f64.ln() + entropy) / 2.0;
        let found = Loss::Bce.of(&logits, &targets).double_value(&[]);
        assert!((found - bce).abs() < 1e-15, "{found}");
    }

    #[test]
    fn half_precision_logits_are_widened() {
        let logits = Tensor::from_slice(&[1.0, -2.0f32]).view([1, 2]).to_kind(Kind::BFloat16);
        let targets = Tensor::from_slice(&[1.0, 0.0f32]).view([1, 2]);
        for loss in [Loss::Bce, Loss::CrossEntropy] {
            assert_eq!(loss.of(&logits, &targets).kind(), Kind::Float);
        }
    }
}
