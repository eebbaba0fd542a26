//! Values on their way from step to step.

use tch::Tensor;

use crate::layers::Recomputable;

/// A value.
#[derive(Debug)]
pub(in crate::graph) enum Slot {
    /// A map of features.
    Map {
        /// Channels first, whatever the graph says.
        map: Recomputable,
        /// Whether the graph has its channels last.
        channels_last: bool,
    },
    /// Anything else: `[N, …]`, spatial sides as [`super::Run::tall_of_map`] has them.
    Tensor(Tensor),
    /// Ones for every image: drop-path that drops nothing.
    Ones,
}

impl Slot {
    pub fn map(map: Recomputable, channels_last: bool) -> Self {
        Self::Map { map, channels_last }
    }
}
