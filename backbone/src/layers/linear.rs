//! Linear map of the channels of every position.

use tch::nn::Path;
use tch::{Kind, Tensor};

use super::recompute::with_copy;
use super::{Layer, Recomputable};
use crate::mode::cast;
use crate::{FeatureMap, Init, Mode, Module, kernels};

/// `torch.nn.Linear` over the channels of each position: ConvNeXt's pointwise
/// convolutions. Fastest in channels-last memory, where it copies nothing.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    weight: Tensor,
    /// `[out]`.
    bias: Option<Tensor>,
}

impl Linear {
    /// Weights drawn from `init`; the bias starts at zero, or as PyTorch's
    /// default where the weights do.
    pub fn new(path: &Path, in_features: i64, out_features: i64, init: Init) -> Self {
        let size = [out_features, in_features];
        Self {
            weight: init.parameter(path, "weight", &size),
            bias: Some(init.of_bias(&size).parameter(path, "bias", &[out_features])),
        }
    }

    /// The layer of these tensors.
    pub(crate) fn by(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// What a host sees.
    pub(crate) fn module(&self) -> Module {
        let [out_features, in_features] = self.weight.size()[..] else {
            unreachable!("a matrix has two dimensions")
        };
        Module::Linear { in_features, out_features }
    }

    /// Element type of the parameters.
    pub fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// The map of rows `[…, in]` to `[…, out]`.
    pub fn on_rows(&self, rows: &Tensor, mode: &Mode) -> Tensor {
        let weights = mode.weights();
        with_copy(
            &self.weight,
            move |weight| weights.cast(weight),
            |weight| {
                let bias = self.bias.as_ref().map(|bias| mode.cast(bias));
                kernels::linear(&mode.cast(rows), weight, bias.as_ref())
            },
        )
    }

    /// Of a map that nobody else needs: it is not kept for the backward pass
    /// where it can be recomputed.
    pub(crate) fn forward_owned(&self, x: Recomputable, mode: &Mode) -> FeatureMap {
        let like = x.map().clone();
        let compute = mode.compute;
        like.map(|_| {
            let rows = move |x: &Tensor| cast(&x.permute([0, 2, 3, 1]), compute);
            x.apply(rows, |rows| self.on_rows(rows, mode).permute([0, 3, 1, 2]))
        })
    }
}

impl Layer for Linear {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.forward_owned(x.clone().into(), mode)
    }
}
