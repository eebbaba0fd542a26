//! Maps that are not kept for the backward pass, because they are quickly made
//! again: the output of a norm or an activation, the windows of a convolution.
//!
//! Convolutions and linear layers keep their input for the gradient of their
//! weights. Where that input follows from something that is kept anyway, its
//! memory is given back after the forward pass and the input made again when
//! the backward pass comes to the layer ("Training Deep Nets with Sublinear
//! Memory Cost", Chen et al. 2016, section 3.1, for operators that cost little).

use tch::Tensor;

use crate::FeatureMap;
use crate::kernels::{self, Recipe};

/// A map that one layer consumes.
#[derive(Debug)]
pub struct Recomputed {
    map: FeatureMap,
    /// Makes the map's tensor again; none if it is kept.
    recipe: Option<Recipe>,
}

impl From<FeatureMap> for Recomputed {
    /// A map that is kept.
    fn from(map: FeatureMap) -> Self {
        Self { map, recipe: None }
    }
}

impl Recomputed {
    /// `map`, whose tensor nobody else holds and `make` makes again, with the
    /// same values and layout.
    pub(super) fn new(map: FeatureMap, make: impl Fn() -> Tensor + Send + 'static) -> Self {
        // On masked grids every layer masks its result in a copy.
        let recipe = match map {
            FeatureMap::Masked { .. } => None,
            _ => Some(Recipe::new(make)),
        };
        Self { map, recipe }
    }

    /// The map, kept from now on.
    pub fn into_map(self) -> FeatureMap {
        self.map
    }

    /// The map, to look at.
    pub(super) fn map(&self) -> &FeatureMap {
        &self.map
    }

    /// What makes the tensor, whether it is kept or not.
    pub(super) fn recipe(&self) -> Recipe {
        self.recipe.clone().unwrap_or_else(|| {
            let kept = self.map.tensor().detach();
            Recipe::new(move || kept.shallow_clone())
        })
    }

    /// What `layer` makes of the map's tensor after `prepare` (a cast, a
    /// gather). Its input is forgotten where that saves memory.
    pub(super) fn consume(
        self,
        prepare: impl Fn(&Tensor) -> Tensor + Send + 'static,
        layer: impl FnOnce(&Tensor) -> Tensor,
    ) -> Tensor {
        let (input, recipe) = self.prepared(prepare);
        let output = layer(&input);
        if let Some(recipe) = recipe {
            kernels::forget(&input, &output, recipe);
        }
        output
    }

    /// What `layer` makes of the map. Its tensor is forgotten where it can be made
    /// again.
    pub(super) fn reduce(self, layer: impl FnOnce(&FeatureMap) -> FeatureMap) -> FeatureMap {
        let output = layer(&self.map);
        if let Some(recipe) = self.recipe {
            kernels::forget(self.map.tensor(), output.tensor(), recipe);
        }
        output
    }

    /// What `prepare` makes of the map's tensor, and how to make it again where
    /// that saves memory.
    pub(super) fn prepared(
        self,
        prepare: impl Fn(&Tensor) -> Tensor + Send + 'static,
    ) -> (Tensor, Option<Recipe>) {
        let tensor = self.map.tensor();
        let input = prepare(tensor);
        // A copy of what is kept may be forgotten; it is worth it if it is no
        // smaller than what the recipe keeps alive.
        let is_copy = input.data_ptr() != tensor.data_ptr();
        let forgets = self.recipe.is_some() || (is_copy && bytes(&input) >= bytes(tensor));
        let recipe = forgets.then(|| {
            let recipe = self.recipe();
            Recipe::new(move || prepare(&recipe.follow()))
        });
        (input, recipe)
    }
}

/// What `layer` makes of a copy of `kept`, which stays as it is until the backward
/// pass (a parameter), after `prepare`. The copy is forgotten.
pub(super) fn with_copy(
    kept: &Tensor,
    prepare: impl Fn(&Tensor) -> Tensor + Send + 'static,
    layer: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let copy = prepare(kept);
    let output = layer(&copy);
    if copy.data_ptr() != kept.data_ptr() {
        let kept = kept.detach();
        kernels::forget(&copy, &output, Recipe::new(move || prepare(&kept)));
    }
    output
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}
