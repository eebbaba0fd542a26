//! Recomputation: maps that are not kept for the backward pass because they are
//! cheap to compute again, such as the output of a norm or an activation, or the
//! windows of a convolution.
//!
//! Convolutions and linear layers keep their input for the gradient of their
//! weights. Where that input is computed from something that is kept anyway, its
//! storage is freed after the forward pass and the input recomputed when the
//! backward pass comes to the layer ("Training Deep Nets with Sublinear
//! Memory Cost", Chen et al. 2016, section 3.1, for operators that cost little).

use tch::Tensor;

use crate::FeatureMap;
use crate::kernels::{self, RecomputeFn};

/// A map that one layer takes, and how to recompute it.
#[derive(Debug)]
pub(crate) struct Recomputable {
    map: FeatureMap,
    /// Recomputes the map's tensor; `None` if it is kept.
    recompute: Option<RecomputeFn>,
}

impl From<FeatureMap> for Recomputable {
    /// A map that is kept.
    fn from(map: FeatureMap) -> Self {
        Self { map, recompute: None }
    }
}

impl Recomputable {
    /// `map`, whose tensor nobody else holds; `make` recomputes it with the same
    /// values and layout.
    pub(super) fn new(map: FeatureMap, make: impl Fn() -> Tensor + Send + 'static) -> Self {
        // On masked grids every layer masks its result in a copy.
        let recompute = match map {
            FeatureMap::Masked { .. } => None,
            _ => Some(RecomputeFn::new(make)),
        };
        Self { map, recompute }
    }

    /// The map, kept from now on.
    pub(crate) fn into_map(self) -> FeatureMap {
        self.map
    }

    /// The map, to look at.
    pub(crate) fn map(&self) -> &FeatureMap {
        &self.map
    }

    /// Recomputes the tensor, or returns it if it is kept.
    pub(super) fn recompute_fn(&self) -> RecomputeFn {
        self.recompute.clone().unwrap_or_else(|| {
            let kept = self.map.tensor().detach();
            RecomputeFn::new(move || kept.shallow_clone())
        })
    }

    /// `layer` of the map's tensor after `prepare` (a cast, a gather). The
    /// layer's input is freed where that saves memory.
    pub(super) fn apply(
        self,
        prepare: impl Fn(&Tensor) -> Tensor + Send + 'static,
        layer: impl FnOnce(&Tensor) -> Tensor,
    ) -> Tensor {
        let (input, recompute) = self.prepared(prepare);
        let output = layer(&input);
        if let Some(recompute) = recompute {
            kernels::free_and_recompute(&input, &output, recompute);
        }
        output
    }

    /// `layer` of the map, whose tensor is freed if it can be recomputed.
    pub(super) fn apply_to_map(self, layer: impl FnOnce(&FeatureMap) -> FeatureMap) -> FeatureMap {
        let output = layer(&self.map);
        if let Some(recompute) = self.recompute {
            kernels::free_and_recompute(self.map.tensor(), output.tensor(), recompute);
        }
        output
    }

    /// `prepare` of the map's tensor, and how to recompute it where that saves
    /// memory.
    pub(super) fn prepared(
        self,
        prepare: impl Fn(&Tensor) -> Tensor + Send + 'static,
    ) -> (Tensor, Option<RecomputeFn>) {
        let tensor = self.map.tensor();
        let input = prepare(tensor);
        // A copy of what is kept may be freed; it is worth it if it is no smaller
        // than what its recomputation keeps alive.
        let is_copy = input.data_ptr() != tensor.data_ptr();
        let is_freed = self.recompute.is_some() || (is_copy && bytes(&input) >= bytes(tensor));
        let recompute = is_freed.then(|| {
            let recompute = self.recompute_fn();
            RecomputeFn::new(move || prepare(&recompute.call()))
        });
        (input, recompute)
    }
}

/// `layer` of a copy, made by `prepare`, of `kept`, which stays as it is until the
/// backward pass (a parameter). The copy is freed, and made again by `prepare`.
pub(super) fn with_copy(
    kept: &Tensor,
    prepare: impl Fn(&Tensor) -> Tensor + Send + 'static,
    layer: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let copy = prepare(kept);
    let output = layer(&copy);
    if copy.data_ptr() != kept.data_ptr() {
        let kept = kept.detach();
        kernels::free_and_recompute(&copy, &output, RecomputeFn::new(move || prepare(&kept)));
    }
    output
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}
