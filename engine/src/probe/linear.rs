//! Multinomial logistic regression on standardised features.

use tch::{Kind, Tensor};

use super::{FeatureBank, Lbfgs};
use crate::{Error, Result};

/// Strengths of the penalty that are tried: five powers of ten.
const PENALTIES: [f64; 5] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
/// Every so many rows one is held out to choose the penalty by.
const HELD_OUT: i64 = 5;

/// How the classifier is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearProbe {
    /// Weight of ½‖W‖² beside the mean cross-entropy (biases are free); none: of
    /// five powers of ten the one that does best on a fifth of the rows, which
    /// is held out for the choice.
    pub l2: Option<f64>,
    /// Steps of L-BFGS at most.
    pub iterations: usize,
}

impl Default for LinearProbe {
    /// The penalty chosen, 200 steps.
    fn default() -> Self {
        Self { l2: None, iterations: 200 }
    }
}

/// A fitted classifier.
#[derive(Debug)]
pub struct LinearClassifier {
    mean: Tensor,
    deviation: Tensor,
    /// `[D, classes]`, of standardised features.
    pub(super) weight: Tensor,
    bias: Tensor,
    /// The penalty it was fitted with.
    pub l2: f64,
    /// Mean cross-entropy plus penalty, at the end.
    pub loss: f64,
}

impl LinearProbe {
    /// Refuses a penalty that cannot be used, before any feature is computed.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn check(&self) -> Result<()> {
        match self.l2 {
            Some(l2) if !(l2 >= 0.0 && l2.is_finite()) => {
                Err(Error::invalid("l2", l2, "it must be at least 0"))
            }
            _ => Ok(()),
        }
    }

    /// Fits a classifier to `training`.
    ///
    /// # Errors
    /// [`Error::Input`] for a negative penalty.
    pub fn fit(&self, training: &FeatureBank) -> Result<LinearClassifier> {
        self.check()?;
        let l2 = self.l2.unwrap_or_else(|| self.best_penalty(training));
        Ok(tch::no_grad(|| self.fit_with(training, l2)))
    }

    fn best_penalty(&self, training: &FeatureBank) -> f64 {
        let rows = training.features.size()[0];
        let number = Tensor::arange(rows, (Kind::Int64, training.features.device()));
        let held = number.remainder(HELD_OUT).eq(HELD_OUT - 1);
        let pick = |mask: &Tensor| training.select(&mask.nonzero().squeeze_dim(1));
        let (kept, held) = (pick(&held.logical_not()), pick(&held));
        if held.features.size()[0] == 0 {
            return PENALTIES[PENALTIES.len() / 2];
        }
        let score = |l2: f64| {
            tch::no_grad(|| held.accuracy(&self.fit_with(&kept, l2).predict(&held.features)))
        };
        // Of equals the strongest penalty: the last maximum.
        let scored = PENALTIES.map(|l2| (score(l2), l2));
        scored.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(PENALTIES[2], |best| best.1)
    }

    fn fit_with(&self, training: &FeatureBank, l2: f64) -> LinearClassifier {
        let features = &training.features;
        let mean = features.mean_dim([0i64].as_slice(), true, None);
        // A feature that never changes has nothing to tell.
        let deviation = features.std_dim([0i64].as_slice(), false, true);
        let still = deviation.le(0.0);
        let deviation = deviation.masked_fill(&still, 1.0);
        let rows = (features - &mean) / &deviation;
        let (count, width) = rows.size2().unwrap_or((1, 1));
        let classes = training.num_classes;
        let target = training.classes.one_hot(classes).to_kind(rows.kind());

        let value = |point: &Tensor| {
            let weight = point.narrow(0, 0, width * classes).view([width, classes]);
            let bias = point.narrow(0, width * classes, classes);
            let log = (rows.matmul(&weight) + &bias).log_softmax(1, None);
            let entropy = -(&log * &target).sum(Kind::Double).double_value(&[]) / count as f64;
            let penalty = 0.5 * l2 * weight.square().sum(Kind::Double).double_value(&[]);
            let error = (log.exp() - &target) / count as f64;
            let of_weight = rows.tr().matmul(&error) + &weight * l2;
            let of_bias = error.sum_dim_intlist([0i64].as_slice(), false, None);
            (entropy + penalty, Tensor::cat(&[of_weight.reshape(-1), of_bias], 0))
        };
        let start = Tensor::zeros([(width + 1) * classes], (rows.kind(), rows.device()));
        let tolerance = if rows.kind() == Kind::Double { 1e-9 } else { 1e-5 };
        let lbfgs = Lbfgs { iterations: self.iterations, tolerance, history: 10 };
        let found = lbfgs.minimise(start, value);
        LinearClassifier {
            mean,
            deviation,
            weight: found.at.narrow(0, 0, width * classes).view([width, classes]),
            bias: found.at.narrow(0, width * classes, classes),
            l2,
            loss: found.value,
        }
    }
}

impl LinearClassifier {
    /// Logits `[M, classes]` of `features` `[M, D]`.
    pub fn logits(&self, features: &Tensor) -> Tensor {
        ((features - &self.mean) / &self.deviation).matmul(&self.weight) + &self.bias
    }

    /// The likeliest class of each row, int64 `[M]`.
    pub fn predict(&self, features: &Tensor) -> Tensor {
        self.logits(features).argmax(1, false)
    }
}
