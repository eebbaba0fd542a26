//! A checkpoint's tensors back into the variables they came from.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use crate::{Error, Result};

/// Copies `saved`, a section of the checkpoint at `path`, into `variables`,
/// all of them or none.
///
/// # Errors
/// [`Error::Checkpoint`] when one of the variables is missing, or of another
/// shape or kind.
pub fn restore(
    path: &Path,
    saved: &BTreeMap<String, Tensor>,
    variables: &BTreeMap<String, Tensor>,
) -> Result<()> {
    for (name, variable) in variables {
        let found = saved.get(name).map(|tensor| (tensor.size(), tensor.kind()));
        let wanted = (variable.size(), variable.kind());
        if found.as_ref() != Some(&wanted) {
            let problem =
                format!("does not fit these settings: {name} is {found:?} there, {wanted:?} here");
            return Err(Error::checkpoint(path, problem));
        }
    }
    tch::no_grad(|| {
        for (name, variable) in variables {
            variable.shallow_clone().copy_(&saved[name]);
        }
    });
    Ok(())
}
