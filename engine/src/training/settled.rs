//! A step's numbers: on the device, then read from it, then judged.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use crate::checkpoint::{CheckpointDir, write_file};
use crate::{Error, Result};

/// What a step computed, still on the device.
#[derive(Debug)]
pub struct Measured {
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
pub struct Settled {
    /// By name; their sum is what is learned from.
    pub losses: BTreeMap<&'static str, f64>,
    /// Before clipping; none if the step was left out.
    pub grad_norm: Option<f64>,
    /// Step number, from 1.
    pub step: u64,
    /// Data set indices of the batch.
    pub indices: Vec<usize>,
}

impl Settled {
    /// The sum of the losses.
    pub fn loss(&self) -> f64 {
        self.losses.values().sum()
    }
}

impl From<Measured> for Settled {
    /// Waits for the device.
    fn from(measured: Measured) -> Self {
        let number = |tensor: &Tensor| tensor.double_value(&[]);
        Self {
            losses: measured.losses.iter().map(|(name, loss)| (*name, number(loss))).collect(),
            grad_norm: measured.grad_norm.as_ref().map(number),
            step: measured.step,
            indices: measured.indices,
        }
    }
}

/// Stops the run in `folder` at a loss or gradient that is not finite, and lists the step's
/// images there. The last checkpoint, made before it, stays. `name` names an image by its index,
/// `advice` is what may help.
///
/// # Errors
/// [`Error::Data`] if that is the case.
pub fn refuse_non_finite(
    settled: &Settled,
    folder: &Path,
    name: impl Fn(usize) -> String,
    checkpoints: &CheckpointDir,
    advice: &str,
) -> Result<()> {
    let wrong = settled.losses.iter().find(|(_, loss)| !loss.is_finite());
    let what = match (wrong, settled.grad_norm) {
        (Some((name, loss)), _) => format!("{name} is {loss}"),
        (None, Some(norm)) if !norm.is_finite() => format!("the gradient norm is {norm}"),
        _ => return Ok(()),
    };
    let names: Vec<String> = settled.indices.iter().map(|&index| name(index)).collect();
    let list = folder.join(format!("non-finite-step-{}.txt", settled.step));
    write_file(&list, (names.join("\n") + "\n").as_bytes())?;
    let kept = checkpoints.last().map_or("there is no checkpoint yet".into(), |path| {
        format!("the last good checkpoint is {}", path.display())
    });
    Err(Error::Data(format!(
        "{what} at step {}; its {} images are listed in {} (the first: {}); {kept}. {advice} may help",
        settled.step,
        names.len(),
        list.display(),
        names.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
    )))
}
