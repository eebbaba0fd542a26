//! How one forward pass runs.

use tch::{Kind, Tensor};

/// Training or evaluation, the element type of the arithmetic, and the random
/// draws of drop-path: everything a pass needs besides its input. A value, so
/// that two models (or two threads) never share hidden state.
#[derive(Debug)]
pub struct Mode {
    /// Batch norms use batch statistics and update their running ones;
    /// drop-path is active.
    pub training: bool,
    /// Convolutions and linear layers compute in this type (parameters stay as
    /// they are; norms keep their statistics in the parameters' type). `None`:
    /// the input's own type.
    pub compute: Option<Kind>,
    /// Where drop-path takes its draws from.
    pub drop_path: DropPathDraws,
}

/// The source of drop-path's random draws.
#[derive(Debug)]
pub enum DropPathDraws {
    /// No block is dropped.
    Off,
    /// libtorch's global generator.
    Generator,
    /// Uniform draws in [0, 1), `[blocks, N]`: row b belongs to block b. Makes
    /// a step reproducible whatever ran before it.
    Table(Tensor),
}

impl Mode {
    /// Evaluation: running statistics, no drop-path.
    pub fn eval() -> Self {
        Self { training: false, compute: None, drop_path: DropPathDraws::Off }
    }

    /// Training, with drop-path drawn from libtorch's global generator.
    pub fn train() -> Self {
        Self { training: true, compute: None, drop_path: DropPathDraws::Generator }
    }

    /// The same pass with convolutions and linear layers in `kind`.
    pub fn with_compute(self, kind: impl Into<Option<Kind>>) -> Self {
        Self { compute: kind.into(), ..self }
    }

    /// The same pass with these drop-path draws.
    pub fn with_drop_path(self, draws: DropPathDraws) -> Self {
        Self { drop_path: draws, ..self }
    }

    /// `tensor` in the type that arithmetic runs in.
    pub fn cast(&self, tensor: &Tensor) -> Tensor {
        match self.compute {
            Some(kind) if tensor.kind() != kind => tensor.to_kind(kind),
            _ => tensor.shallow_clone(),
        }
    }
}
