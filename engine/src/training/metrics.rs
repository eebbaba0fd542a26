//! A step's numbers: on the device, then read from it, then judged.

use std::collections::BTreeMap;

use tch::Tensor;
use words::counted;

use super::RunWriter;
use crate::distributed::ProcessGroup;
use crate::{Error, Result};
use data::write_file;

/// What a step computed, still on the device.
#[derive(Debug)]
pub struct PendingMetrics {
    /// Scalars by name; their sum is what is learned from.
    pub losses: Vec<(&'static str, Tensor)>,
    /// Scalar, before clipping; none if float16 gradients overflowed and the
    /// step was left out.
    pub grad_norm: Option<Tensor>,
    /// Step number, from 1.
    pub step: u64,
    /// Data set indices of the batch.
    pub indices: Vec<usize>,
}

/// A step's numbers, read from the device.
#[derive(Debug)]
pub struct StepMetrics {
    /// By name; their sum is what is learned from.
    pub losses: BTreeMap<&'static str, f64>,
    /// Before clipping; none if the step was left out.
    pub grad_norm: Option<f64>,
    /// Step number, from 1.
    pub step: u64,
    /// Data set indices of the batch.
    pub indices: Vec<usize>,
}

impl StepMetrics {
    /// The sum of the losses.
    pub fn loss(&self) -> f64 {
        self.losses.values().sum()
    }
}

impl PendingMetrics {
    /// Waits for the device, and takes the means over all processes of the losses; gradients are
    /// everybody's already.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn settle(self, world: &ProcessGroup) -> Result<StepMetrics> {
        let number = |tensor: &Tensor| tensor.double_value(&[]);
        let mut losses: Vec<f64> = self.losses.iter().map(|(_, loss)| number(loss)).collect();
        world.mean(&mut losses)?;
        let names = self.losses.iter().map(|(name, _)| *name);
        Ok(StepMetrics {
            losses: names.zip(losses).collect(),
            grad_norm: self.grad_norm.as_ref().map(number),
            step: self.step,
            indices: self.indices,
        })
    }
}

/// Stops the run at a loss or gradient that is not finite, on all processes, and lists the step's
/// images in the run's folder. The last checkpoint, made before it, stays. `name` names an image by
/// its index, `advice` is what may help.
///
/// # Errors
/// [`Error::Input`] if that is the case.
pub fn check_finite(
    world: &ProcessGroup,
    metrics: &StepMetrics,
    files: &RunWriter,
    name: impl Fn(usize) -> String,
    advice: &str,
) -> Result<()> {
    let wrong = metrics.losses.iter().find(|(_, loss)| !loss.is_finite());
    let what = match (wrong, metrics.grad_norm) {
        (Some((name, loss)), _) => format!("{name} is {loss}"),
        (None, Some(norm)) if !norm.is_finite() => format!("the gradient norm is {norm}"),
        _ => return Ok(()),
    };
    let names: Vec<String> = metrics.indices.iter().map(|&index| name(index)).collect();
    let names = world.gather(&names)?.concat();
    let (Some(folder), Some(checkpoints)) = (files.folder(), files.checkpoints()) else {
        let text = format!("{what} at step {}", metrics.step);
        return Err(Error::Elsewhere { rank: 0, text });
    };
    let list = folder.path().join(format!("non-finite-step-{}.txt", metrics.step));
    write_file(&list, (names.join("\n") + "\n").as_bytes())?;
    let kept = checkpoints.last().map_or("there is no checkpoint yet".into(), |path| {
        format!("the last good checkpoint is {}", path.display())
    });
    Err(Error::data(format!(
        "{what} at step {}, of {} that {} lists (the first: {}); {kept}. {advice} may help",
        metrics.step,
        counted(names.len(), "image"),
        list.display(),
        names.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
    )))
}
