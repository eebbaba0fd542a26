//! The losses of a step, by name.

use engine::distributed::ProcessGroup;
use tch::{Reduction, Tensor};

use crate::Result;

/// Losses by detectron2's names, each a scalar.
#[derive(Debug)]
pub struct Losses(Vec<(&'static str, Tensor)>);

impl Losses {
    pub(super) fn new(losses: Vec<(&'static str, Tensor)>) -> Self {
        Self(losses)
    }

    /// Names and scalars: `loss_rpn_cls`, `loss_rpn_loc`, `loss_cls`,
    /// `loss_box_reg` and, with a mask branch, `loss_mask`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.0.iter().map(|(name, loss)| (*name, loss))
    }

    /// The loss of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(own, _)| *own == name).map(|(_, loss)| loss)
    }

    /// Their sum, which is what is learned from.
    pub fn total(&self) -> Tensor {
        Tensor::stack(&self.0.iter().map(|(_, loss)| loss).collect::<Vec<_>>(), 0)
            .sum(self.0[0].1.kind())
    }
}

/// Sum of |x − y|, or of ½(x − y)² / `beta` + … below `beta`; 0 of nothing.
pub(super) fn smooth_l1_sum(x: &Tensor, y: &Tensor, beta: f64) -> Tensor {
    if beta > 0.0 {
        x.smooth_l1_loss(y, Reduction::Sum, beta)
    } else {
        x.l1_loss(y, Reduction::Sum)
    }
}

/// What each process divides its sum by, so that the mean over processes of these quotients is the
/// sum of all over the count of all (at least 1): `count` is this process's own.
pub(super) fn mean_count(world: &ProcessGroup, count: i64) -> Result<f64> {
    let mut total = [count as f64];
    world.sum(&mut total)?;
    Ok(total[0].max(1.0) / world.size() as f64)
}
