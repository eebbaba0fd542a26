//! Weighted nearest neighbours ("Unsupervised Feature Learning via
//! Non-Parametric Instance Discrimination", Wu et al. 2018; DINO's
//! `eval_knn.py`).

use tch::{Kind, Tensor};

use super::FeatureBank;
use crate::{Error, Result};

/// Similarities computed at a time, 256 MiB in float32.
const SIMILARITIES: i64 = 1 << 26;

/// The classifier's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// Neighbours that vote; all there are where there are fewer.
    pub k: i64,
    /// A neighbour's vote is exp(cosine / temperature).
    pub temperature: f64,
}

impl Default for Knn {
    /// 20 neighbours, temperature 0.07.
    fn default() -> Self {
        Self { k: 20, temperature: 0.07 }
    }
}

impl Knn {
    /// Refuses constants that cannot be used, before any feature is computed.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn check(&self) -> Result<()> {
        if self.k < 1 {
            return Err(Error::invalid("k", self.k, "at least one neighbour must vote"));
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::invalid("temperature", self.temperature, "it must be above 0"));
        }
        Ok(())
    }

    /// The class, int64 `[M]`, that the neighbours in `bank` give to each of the
    /// `queries` `[M, D]`; the first of several with as many votes.
    ///
    /// # Errors
    /// [`Error::Input`] for constants out of range, or queries of another width.
    pub fn predict(&self, bank: &FeatureBank, queries: &Tensor) -> Result<Tensor> {
        self.check()?;
        if queries.dim() != 2 || queries.size()[1] != bank.features.size()[1] {
            let rule = format!("the bank's features are {:?}", bank.features.size());
            return Err(Error::invalid("queries", format!("{:?}", queries.size()), rule));
        }
        let keys = unit(&bank.features).tr();
        let rows = (SIMILARITIES / bank.features.size()[0]).clamp(1, 512);
        let votes = |rows: Tensor| self.votes(bank, &keys, &unit(&rows)).argmax(1, false);
        Ok(Tensor::cat(&queries.split(rows, 0).into_iter().map(votes).collect::<Vec<_>>(), 0))
    }

    /// The sum of votes for every class, `[m, classes]`. Votes are relative to
    /// the nearest neighbour's, which changes no order and cannot overflow.
    fn votes(&self, bank: &FeatureBank, keys: &Tensor, rows: &Tensor) -> Tensor {
        let k = self.k.min(bank.features.size()[0]);
        let (cosines, neighbours) = rows.matmul(keys).topk(k, 1, true, true);
        let nearest = cosines.narrow(1, 0, 1);
        let weights = ((&cosines - nearest) / self.temperature).exp();
        let classes = bank.classes.index_select(0, &neighbours.view([-1])).view_as(&neighbours);
        Tensor::zeros([rows.size()[0], bank.num_classes], (weights.kind(), weights.device()))
            .scatter_add(1, &classes, &weights)
    }
}

/// Rows of length 1; a row of zeros stays one.
fn unit(rows: &Tensor) -> Tensor {
    let length = rows.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
    let least = if rows.kind() == Kind::Double { 1e-300 } else { 1e-30 };
    rows / length.clamp_min(least)
}
