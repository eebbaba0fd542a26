//! Calls that belong together: norms with the activation behind them, draws with their scale.

use super::super::ssa::{Call, Ssa, ValueId};
use super::{Lowering, NormSpec, StepKind, activation};
use crate::layers::Activation;

impl Lowering<'_> {
    /// The one needed call that reads a value.
    fn only_reader(&self, id: ValueId) -> Option<usize> {
        if self.uses[id] != 1 {
            return None;
        }
        let mut readers = (0..self.ssa.calls.len()).filter(|&call| {
            self.stage_of_call[call].is_some() && Ssa::reads(&self.ssa.calls[call]).any(|r| r == id)
        });
        readers.next()
    }

    /// A batch norm with running statistics, and the function behind it if that clamps.
    pub(super) fn batch_norm(
        &mut self,
        _index: usize,
        call: &Call,
    ) -> Option<(StepKind, Vec<ValueId>)> {
        let input = call.value("input")?;
        let (mean, var) = (call.value("running_mean")?, call.value("running_var")?);
        if !self.layout(input).is_of_images() {
            return None;
        }
        let trains = call.flag("training").unwrap_or(false);
        let mut outputs = call.outputs.clone();
        let next = outputs.first().and_then(|&output| self.only_reader(output));
        let mut behind = Activation::Identity;
        if let Some(next) = next
            && let Some(function) = activation(&self.ssa.calls[next])
            && matches!(function, Activation::Relu | Activation::Relu6)
            && self.stage_of_call[next] == self.stage_of_call[self.producer(call)]
        {
            behind = function;
            outputs = self.ssa.calls[next].outputs.clone();
            self.done.insert(next);
        }
        self.norms.push(NormSpec {
            weight: call.value("weight"),
            bias: call.value("bias"),
            mean,
            var,
            momentum: call.float("momentum").unwrap_or(0.1),
            eps: call.float("eps").unwrap_or(1e-5),
            frozen: self.any_norm_trains && !trains,
        });
        let norm = self.norms.len() - 1;
        Some((StepKind::BatchNorm { input, norm, activation: behind }, outputs))
    }

    /// The call's own number.
    fn producer(&self, call: &Call) -> usize {
        call.outputs.first().and_then(|&id| self.ssa.values[id].producer).unwrap_or(0)
    }

    /// Whether a batch norm alone reads the convolution `index`, with nothing behind it that clamps.
    pub(super) fn feeds_plain_norm(&self, index: usize) -> bool {
        let output = self.ssa.calls[index].outputs.first();
        let Some(next) = output.and_then(|&output| self.only_reader(output)) else { return false };
        let norm = &self.ssa.calls[next];
        if norm.operator != "batch_norm" {
            return false;
        }
        let behind = norm.outputs.first().and_then(|&output| self.only_reader(output));
        behind.is_none_or(|behind| activation(&self.ssa.calls[behind]).is_none())
    }

    /// The step of a random draw: drop-path's for every image, or dropout's.
    pub(super) fn draw(&mut self, call: &Call) -> Option<StepKind> {
        let input = call.first()?;
        match call.operator.as_str() {
            "bernoulli" => {
                let keep = call.float("p")?;
                let site = self.drop_path.len();
                self.drop_path.push(1.0 - keep);
                let drawn = *call.outputs.first()?;
                self.draws.insert(drawn, site);
                // What is kept is scaled by 1 / keep, right behind.
                let scale = self.only_reader(drawn).filter(|&next| {
                    let next = &self.ssa.calls[next];
                    next.operator == "div"
                        && next.first() == Some(drawn)
                        && next.float("other").is_some_and(|by| (by - keep).abs() < 1e-12)
                });
                if let Some(scale) = scale {
                    self.done.insert(scale);
                    let scaled = self.ssa.calls[scale].outputs.first().copied();
                    self.draws.extend(scaled.map(|scaled| (scaled, site)));
                }
                Some(StepKind::DropPath { site, scaled: scale.is_some() })
            }
            // Exported in evaluation, it does nothing.
            "dropout" | "feature_dropout" if call.flag("train") == Some(false) => {
                Some(StepKind::Relabel { input })
            }
            "dropout" | "feature_dropout" => {
                let rate = call.float("p")?;
                let site = self.dropouts;
                self.dropouts += 1;
                let of_channels = call.operator == "feature_dropout";
                Some(StepKind::Dropout { input, site, rate, of_channels })
            }
            _ => None,
        }
    }

    /// The value that a draw is known by once its scale is in it.
    pub(super) fn drawn(&self, call: &Call) -> Vec<ValueId> {
        let next = call.outputs.first().and_then(|&drawn| self.only_reader(drawn));
        match next {
            Some(next) if call.operator == "bernoulli" && self.done.contains(&next) => {
                self.ssa.calls[next].outputs.clone()
            }
            _ => call.outputs.clone(),
        }
    }
}
