//! The tensors of a checkpoint.

use std::collections::BTreeMap;

use backbone::weights::check_finite;
use tch::Tensor;

use crate::Result;
use crate::optim::{Ema, Optimizer};

/// Tensors of a checkpoint by section and name, sharing storage with what is trained.
pub struct Sections {
    model: BTreeMap<String, Tensor>,
    optimizer: BTreeMap<String, Tensor>,
    averages: Option<BTreeMap<String, Tensor>>,
}

impl Sections {
    /// Of a model's variables, what updates them, and their averages if there are any.
    pub fn new(
        model: BTreeMap<String, Tensor>,
        optimizer: &dyn Optimizer,
        averages: Option<&Ema>,
    ) -> Self {
        let share = |ema: &Ema| {
            let tensors = ema.averages().iter();
            tensors.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
        };
        Self { model, optimizer: optimizer.state(), averages: averages.map(share) }
    }

    /// Refuses a model, or averages, that compute nothing any more.
    ///
    /// # Errors
    /// [`crate::Error::Backbone`] naming what is not finite.
    pub fn check_finite(&self) -> Result<()> {
        let rule = "the checkpoints before are kept; a lower learning rate or float32 may help";
        check_finite("the model", &self.model, rule)?;
        let averages = self.averages.as_ref();
        Ok(averages.map_or(Ok(()), |ema| check_finite("the averaged model", ema, rule))?)
    }

    /// By section name: `model`, `optimizer` and, where there is one, `ema`.
    pub fn named(&self) -> Vec<(&str, &BTreeMap<String, Tensor>)> {
        let mut named = vec![("model", &self.model), ("optimizer", &self.optimizer)];
        named.extend(self.averages.as_ref().map(|averages| ("ema", averages)));
        named
    }
}
