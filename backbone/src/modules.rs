//! Layers in the words of PyTorch's modules, for hosts that look for those.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use tch::Tensor;

use crate::{Mode, Size};

/// A layer with parameters: the class of `torch.nn` that it is, with the arguments of
/// that class.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type")]
#[allow(missing_docs)] // PyTorch's documentation explains the fields.
pub enum Module {
    Conv2d {
        in_channels: i64,
        out_channels: i64,
        kernel_size: Size,
        stride: Size,
        padding: Size,
        dilation: Size,
        groups: i64,
        bias: bool,
    },
    BatchNorm2d {
        num_features: i64,
        eps: f64,
        momentum: f64,
        /// How the host runs this one.
        #[serde(skip)]
        control: NormControl,
    },
    /// Over the channels of each position.
    LayerNorm {
        normalized_shape: i64,
        eps: f64,
    },
    Linear {
        in_features: i64,
        out_features: i64,
    },
}

/// How a host runs one batch norm apart from the others; a clone controls the same one.
/// Until the host says something, it runs as the pass does.
#[derive(Debug, Clone, Default)]
pub struct NormControl(Arc<Control>);

#[derive(Debug, Default)]
struct Control {
    /// 0: as the pass; 1: evaluation; 2: training.
    training: AtomicU8,
    /// 0: the layer's own; 1: the mean of all batches; 2: `momentum`.
    averaging: AtomicU8,
    /// Bits of an f64.
    momentum: AtomicU64,
}

impl NormControl {
    /// Whether it uses the statistics of the batch, and the share of these in the running
    /// ones; `None`: running statistics are the mean of all batches so far.
    pub fn set(&self, training: bool, momentum: Option<f64>) {
        let Control { training: mode, averaging, momentum: share } = &*self.0;
        share.store(momentum.unwrap_or_default().to_bits(), Relaxed);
        averaging.store(if momentum.is_some() { 2 } else { 1 }, Relaxed);
        mode.store(if training { 2 } else { 1 }, Relaxed);
    }

    /// Makes it run as `other` does.
    pub fn copy(&self, other: &Self) {
        self.0.momentum.store(other.0.momentum.load(Relaxed), Relaxed);
        self.0.averaging.store(other.0.averaging.load(Relaxed), Relaxed);
        self.0.training.store(other.0.training.load(Relaxed), Relaxed);
    }

    /// Whether it uses the batch's statistics: as the pass, unless the host decides.
    pub(crate) fn uses_batch_statistics(&self, mode: &Mode) -> bool {
        match self.0.training.load(Relaxed) {
            0 => mode.uses_batch_statistics(),
            own => own == 2 && !mode.norm_eval,
        }
    }

    /// The share of the batch in the running statistics; `own` is the layer's, `batches`
    /// the number of batches with this one, where that is counted.
    pub(crate) fn momentum(&self, own: f64, batches: Option<&Tensor>) -> f64 {
        match self.0.averaging.load(Relaxed) {
            0 => own,
            1 => batches.map_or(own, |batches| 1.0 / batches.double_value(&[])),
            _ => f64::from_bits(self.0.momentum.load(Relaxed)),
        }
    }
}
