//! The part of the grid that a patch's outputs depend on.

use tch::{Device, Kind, Tensor};

/// What a patch's outputs see along one side, relative to the patch's first
/// position: `steps` steps of `stride`, at each of them `taps` positions
/// `dilation` apart. The first is `start` (negative for a halo before the
/// patch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Axis {
    pub start: i64,
    pub steps: i64,
    pub stride: i64,
    pub taps: i64,
    pub dilation: i64,
}

impl Axis {
    /// `len` positions in a row.
    pub fn contiguous(start: i64, len: i64) -> Self {
        Self { start, steps: len, stride: 1, taps: 1, dilation: 1 }
    }

    /// One more than the last position.
    pub fn end(&self) -> i64 {
        self.start + (self.steps - 1) * self.stride + (self.taps - 1) * self.dilation + 1
    }

    /// The positions, `[steps, taps]`.
    pub fn positions(&self, device: Device) -> Tensor {
        let range = |len: i64| Tensor::arange(len, (Kind::Int64, device));
        (range(self.steps) * self.stride).unsqueeze(1)
            + range(self.taps) * self.dilation
            + self.start
    }
}

/// The part of the grid that a patch's outputs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub y: Axis,
    pub x: Axis,
}

/// What a window holds where it reaches beyond the grid. Masked positions
/// within the grid are always zero (submanifold sparse semantics).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Border {
    Zero,
    NegativeInfinity,
}
