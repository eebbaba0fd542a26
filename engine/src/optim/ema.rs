//! An exponential moving average of a model's weights.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::{Error, Result};

/// Averages of named tensors, which follow the model's from step to step. Unless
/// told otherwise the decay rises to its full value as (1 + n) / (10 + n) over
/// the first steps, so that short runs average over their own length.
#[derive(Debug)]
pub struct Ema {
    averages: BTreeMap<String, Tensor>,
    decay: f64,
    rises: bool,
}

impl Ema {
    /// Begins with copies of `model`.
    ///
    /// # Errors
    /// [`Error::Input`] for a decay outside [0, 1).
    pub fn new(model: &BTreeMap<String, Tensor>, decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::invalid("ema", decay, "it must be at least 0 and below 1"));
        }
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Ok(Self { averages: model.iter().map(copy).collect(), decay, rises: true })
    }

    /// The same with its full decay from the first step on (timm's `ModelEmaV3`).
    pub fn with_constant_decay(self) -> Self {
        Self { rises: false, ..self }
    }

    /// Takes in the model after its `step`th step (from 1). Integers are taken
    /// over as they are.
    pub fn update(&mut self, model: &BTreeMap<String, Tensor>, step: u64) {
        let risen = (1.0 + step as f64) / (10.0 + step as f64);
        let decay = if self.rises { self.decay.min(risen) } else { self.decay };
        tch::no_grad(|| {
            for (name, average) in &mut self.averages {
                let now = &model[name];
                if now.is_floating_point() {
                    let _ = average.lerp_(now, 1.0 - decay);
                } else {
                    average.copy_(now);
                }
            }
        });
    }

    /// Swaps the model's values with the averages, in place; a second call undoes it.
    pub fn swap(&mut self, model: &BTreeMap<String, Tensor>) {
        tch::no_grad(|| {
            for (name, average) in &mut self.averages {
                let mut variable = model[name].shallow_clone();
                let kept = variable.copy();
                variable.copy_(average);
                average.copy_(&kept);
            }
        });
    }

    /// The averages by name, sharing memory.
    pub fn averages(&self) -> &BTreeMap<String, Tensor> {
        &self.averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(value: f64, count: i64) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("weight".to_owned(), Tensor::from_slice(&[value, 2.0 * value])),
            ("count".to_owned(), Tensor::from(count)),
        ])
    }

    #[test]
    fn averages_follow_the_model() {
        let mut ema = Ema::new(&model(0.0, 0), 0.75).unwrap();
        // (1 + 1) / (10 + 1) is below the decay, (1 + 50) / (10 + 50) above.
        ema.update(&model(1.0, 7), 1);
        let after = 1.0 - 2.0 / 11.0;
        assert!((ema.averages()["weight"].double_value(&[1]) - 2.0 * after).abs() < 1e-15);
        assert_eq!(ema.averages()["count"].int64_value(&[]), 7);
        ema.update(&model(1.0, 8), 50);
        let after = 0.75 * after + 0.25;
        assert!((ema.averages()["weight"].double_value(&[0]) - after).abs() < 1e-15);
    }

    #[test]
    fn a_constant_decay_holds_from_the_first_step() {
        let mut ema = Ema::new(&model(0.0, 0), 0.75).unwrap().with_constant_decay();
        ema.update(&model(1.0, 7), 1);
        assert_eq!(ema.averages()["weight"].double_value(&[0]), 0.25);
    }

    #[test]
    fn swapping_twice_changes_nothing() {
        let here = model(1.0, 3);
        let mut ema = Ema::new(&model(5.0, 9), 0.9).unwrap();
        ema.swap(&here);
        assert_eq!(here["weight"].double_value(&[0]), 5.0);
        assert_eq!(ema.averages()["weight"].double_value(&[1]), 2.0);
        ema.swap(&here);
        assert_eq!(here["weight"].double_value(&[0]), 1.0);
        assert_eq!(here["count"].int64_value(&[]), 3);
    }

    #[test]
    fn the_average_is_no_view_of_the_model() {
        let here = model(1.0, 3);
        let ema = Ema::new(&here, 0.9).unwrap();
        let _ = here["weight"].shallow_clone().fill_(4.0);
        assert_eq!(ema.averages()["weight"].double_value(&[0]), 1.0);
        assert!(Ema::new(&here, 1.0).is_err());
    }
}
