//! Batch norms' running statistics, estimated anew over some batches.
//!
//! The running averages of training mix in statistics of weights long gone; in
//! evaluation, those of the present weights do better ("Rethinking 'Batch' in
//! BatchNorm", Wu and Johnson 2021; fvcore `nn/precise_bn.py`).

use std::collections::BTreeMap;

use anyhow::Result;
use tch::{Kind, Tensor};

/// The share of a batch in the running statistics after one pass
/// (`torch.nn.BatchNorm2d`'s momentum), unless a layer says otherwise.
const MOMENTUM: f64 = 0.1;

/// One batch norm.
struct Norm {
    mean: Tensor,
    var: Tensor,
    /// Of the statistics before.
    kept: (Tensor, Tensor),
    counter: Option<(Tensor, Tensor)>,
    momentum: f64,
    /// Sums over batches of the mean and of the mean square, float64.
    sums: (Tensor, Tensor),
    batches: i64,
}

impl Norm {
    fn new(
        name: &str,
        mean: &Tensor,
        variables: &BTreeMap<String, Tensor>,
        momentum: f64,
    ) -> Option<Self> {
        let var = variables.get(&format!("{name}running_var"))?;
        let counter = variables.get(&format!("{name}num_batches_tracked"));
        let zeros = || Tensor::zeros_like(mean).to_kind(Kind::Double);
        Some(Self {
            kept: (mean.copy(), var.copy()),
            counter: counter.map(|counter| (counter.shallow_clone(), counter.copy())),
            mean: mean.shallow_clone(),
            var: var.shallow_clone(),
            momentum,
            sums: (zeros(), zeros()),
            batches: 0,
        })
    }

    /// Puts the statistics before back, so that a pass moves them by the
    /// momentum's share of the batch's, and a norm that runs on them finds them.
    fn reset(&mut self) {
        self.mean.copy_(&self.kept.0);
        self.var.copy_(&self.kept.1);
    }

    fn take(&mut self) {
        // One that did not run, or ran on its running statistics.
        if self.mean.equal(&self.kept.0) && self.var.equal(&self.kept.1) {
            return;
        }
        let of_batch = |now: &Tensor, before: &Tensor| {
            let before = before.to_kind(Kind::Double) * (1.0 - self.momentum);
            (now.to_kind(Kind::Double) - before) / self.momentum
        };
        let mean = of_batch(&self.mean, &self.kept.0);
        let var = of_batch(&self.var, &self.kept.1);
        self.sums.1 += var + mean.square();
        self.sums.0 += mean;
        self.batches += 1;
    }

    /// The statistics over all batches, or those before where there are none.
    fn settle(&mut self) {
        if let Some((counter, before)) = &mut self.counter {
            counter.copy_(before);
        }
        if self.batches == 0 {
            self.reset();
            return;
        }
        let mean = &self.sums.0 / self.batches as f64;
        let var = &self.sums.1 / self.batches as f64 - mean.square();
        self.mean.copy_(&mean);
        self.var.copy_(&var.clamp_min(0.0));
    }
}

/// Whether there are batch norms outside the backbone and its pyramid.
pub fn has_head_norms(variables: &BTreeMap<String, Tensor>) -> bool {
    variables.keys().any(|name| name.ends_with("running_mean") && !name.starts_with("backbone."))
}

/// Sets the running statistics of every batch norm among `variables` that runs
/// on batch statistics: the mean, and the variance of the whole, each batch
/// counting the same. `forward` runs one batch in training mode, without
/// gradient, and says whether there was one. `momenta` are those of batch norms by name that
/// have another than PyTorch's usual one.
///
/// # Errors
/// Those of `forward`; statistics are then as they were.
pub fn update(
    variables: &BTreeMap<String, Tensor>,
    momenta: &BTreeMap<String, f64>,
    mut forward: impl FnMut() -> Result<bool>,
) -> Result<()> {
    tch::no_grad(|| {
        let mut norms: Vec<Norm> = variables
            .iter()
            .filter_map(|(name, mean)| {
                let name = name.strip_suffix("running_mean")?;
                let momentum = momenta.get(name.trim_end_matches('.')).copied();
                Norm::new(name, mean, variables, momentum.unwrap_or(MOMENTUM))
            })
            .collect();
        let result = loop {
            norms.iter_mut().for_each(Norm::reset);
            match forward() {
                Ok(true) => norms.iter_mut().for_each(Norm::take),
                Ok(false) => break Ok(()),
                Err(error) => {
                    norms.iter_mut().for_each(|norm| norm.batches = 0);
                    break Err(error);
                }
            }
        };
        norms.iter_mut().for_each(Norm::settle);
        result
    })
}

#[cfg(test)]
mod tests {
    use backbone::layers::{BatchNorm2d, Layer};
    use backbone::{FeatureMap, Mode};
    use tch::{Device, nn};

    use super::*;

    #[test]
    fn statistics_are_those_of_all_batches_together() {
        let store = nn::VarStore::new(Device::Cpu);
        let norm = BatchNorm2d::new(&(store.root() / "used"), 3);
        let frozen = BatchNorm2d::new(&(store.root() / "idle"), 3);
        let variables: BTreeMap<_, _> = store.variables().into_iter().collect();
        let before = variables["idle.running_var"].copy();
        tch::manual_seed(1);
        let batches: Vec<Tensor> = (0..4)
            .map(|n| Tensor::randn([8, 3, 16, 16], tch::kind::FLOAT_CPU) * 2.0 + f64::from(n))
            .collect();
        let eval = |batch: &Tensor| {
            frozen.forward(&FeatureMap::Grid(batch.shallow_clone()), &Mode::eval()).to_grid()
        };
        let unchanged = eval(&batches[0]);
        let mut left = batches.iter();
        update(&variables, &BTreeMap::new(), || {
            let Some(batch) = left.next() else { return Ok(false) };
            // One that runs on its statistics must find them meanwhile.
            assert!(eval(&batches[0]).equal(&unchanged));
            norm.forward(&FeatureMap::Grid(batch.shallow_clone()), &Mode::train());
            Ok(true)
        })
        .unwrap();
        let all = Tensor::cat(&batches, 0).to_kind(Kind::Double);
        let mean = all.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Double);
        let var = all.var_dim([0i64, 2, 3].as_slice(), false, false);
        // A batch's own variance is taken with n − 1 for n = 2048 values: 5e-4
        // of it; the rest is float32.
        let apart = |a: &Tensor, b: &Tensor| {
            ((a.to_kind(Kind::Double) - b) / b).abs().max().double_value(&[])
        };
        assert!(apart(&variables["used.running_mean"], &mean) < 1e-4);
        assert!(apart(&variables["used.running_var"], &var) < 6e-4);
        assert!(variables["idle.running_var"].equal(&before), "what never ran is left alone");
        assert_eq!(variables["used.num_batches_tracked"].int64_value(&[]), 0);
    }

    #[test]
    fn an_error_leaves_everything_as_it_was() {
        let store = nn::VarStore::new(Device::Cpu);
        let norm = BatchNorm2d::new(&store.root(), 3);
        let variables: BTreeMap<_, _> = store.variables().into_iter().collect();
        let mut calls = 0;
        let result = update(&variables, &BTreeMap::new(), || {
            calls += 1;
            let batch = Tensor::randn([2, 3, 4, 4], tch::kind::FLOAT_CPU);
            norm.forward(&FeatureMap::Grid(batch), &Mode::train());
            anyhow::ensure!(calls < 3, "no more");
            Ok(true)
        });
        assert!(result.is_err());
        let ones = Tensor::ones([3], tch::kind::FLOAT_CPU);
        assert!(variables["running_var"].equal(&ones));
    }
}
