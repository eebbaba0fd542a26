//! Features brought to a common scale before they are compared.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::FeatureBank;
use crate::{Error, Result};

/// Added to the variances that whitening divides by, as a share of their mean: directions that the
/// images hardly differ in, of which there are many where there are fewer images than features,
/// are not blown up.
const RIDGE: f64 = 0.1;

/// What is done to features before neighbours are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// Nothing
    #[default]
    None,
    /// The mean of each feature is taken away, and each divided by its deviation
    Standard,
    /// The mean is taken away, and all directions get about the same variance
    Whitened,
}

/// A scaling that is fitted to a bank.
#[derive(Debug)]
pub struct Scaler {
    mean: Tensor,
    /// What rows are multiplied by: one number a feature, or a matrix.
    factor: Tensor,
}

impl Scaling {
    /// As the features of `bank` need it; none where nothing is to be done.
    ///
    /// # Errors
    /// [`Error::Input`] where the bank's covariance has no eigenvalues that can be found.
    pub fn fit(self, bank: &FeatureBank) -> Result<Option<Scaler>> {
        if self == Self::None {
            return Ok(None);
        }
        let rows = bank.features().to_kind(Kind::Double);
        let mean = rows.mean_dim([0i64].as_slice(), true, None);
        let rows = rows - &mean;
        let factor = match self {
            Self::None => return Ok(None),
            Self::Standard => {
                let deviation = rows.square().mean_dim([0i64].as_slice(), true, None).sqrt();
                // A feature that never changes has nothing to tell.
                let still = deviation.le(0.0);
                deviation.reciprocal().masked_fill(&still, 0.0)
            }
            Self::Whitened => whitening(&rows)?,
        };
        let kind = bank.features().kind();
        Ok(Some(Scaler { mean: mean.to_kind(kind), factor: factor.to_kind(kind) }))
    }
}

/// `[D, D]` that gives rows `[N, D]`, whose mean is 0, about the same variance in all directions.
fn whitening(rows: &Tensor) -> Result<Tensor> {
    let covariance = rows.tr().matmul(rows) / rows.size()[0] as f64;
    let found = covariance.f_linalg_eigh("L");
    let (variances, directions) =
        found.map_err(|error| Error::invalid("features", "not whitened", error.to_string()))?;
    let variances = variances.clamp_min(0.0);
    let ridge = RIDGE * variances.mean(Kind::Double).double_value(&[]).max(f64::MIN_POSITIVE);
    let scaled = &directions * (variances + ridge).rsqrt().unsqueeze(0);
    Ok(scaled.matmul(&directions.tr()))
}

impl Scaler {
    /// Rows `[N, D]` to scale.
    pub fn apply(&self, rows: &Tensor) -> Tensor {
        let rows = rows - &self.mean;
        match self.factor.size()[0] {
            1 => rows * &self.factor,
            _ => rows.matmul(&self.factor),
        }
    }
}
