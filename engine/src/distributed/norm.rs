//! Batch norm over the batches of all processes.

use std::rc::Rc;

use backbone::SyncBatchNorm;
use tch::Tensor;

use super::ProcessGroup;
use crate::bridge::{borrow, ffi, take};

/// `torch.nn.SyncBatchNorm`'s arithmetic.
#[derive(Debug)]
struct Synchronised(ProcessGroup);

impl ProcessGroup {
    /// What makes batch norms share their statistics; none of one process, whose own are all.
    pub fn sync_batch_norm(&self) -> Option<Rc<dyn SyncBatchNorm>> {
        (!self.is_alone()).then(|| Rc::new(Synchronised(self.clone())) as Rc<dyn SyncBatchNorm>)
    }
}

impl SyncBatchNorm for Synchronised {
    fn batch_norm(
        &self,
        x: &Tensor,
        [weight, bias]: [&Tensor; 2],
        [running_mean, running_var]: [&Tensor; 2],
        momentum: f64,
        eps: f64,
    ) -> Tensor {
        let normed = self.0.operate("sharing batch statistics", |group| {
            ffi::sync_batch_norm(
                group,
                borrow(x),
                borrow(weight),
                borrow(bias),
                borrow(running_mean),
                borrow(running_var),
                momentum,
                eps,
            )
        });
        // A layer has no way to fail. The world remembers that it did, and whoever asks next, at
        // the latest the backward pass, is told.
        normed.map_or_else(|_| x.shallow_clone(), take)
    }
}
