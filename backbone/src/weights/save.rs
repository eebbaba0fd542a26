//! A model's tensors into one file, in the naming and form asked for.

use std::path::Path;

use super::{Naming, StateDict, export, write_pkl, write_pth, write_safetensors};
use crate::models::Family;
use crate::{Error, Result};

/// Writes `tensors` (canonical names) to `path` as `naming` has them; mmdet's
/// go under `backbone.`, where its detectors look. The path's ending decides
/// the form: `.safetensors`, `.pth` (or `.pt`), `.pkl`.
///
/// # Errors
/// Another ending, a framework without such a model, or a file that cannot be
/// written; then `path` is as it was.
pub fn save(
    path: impl AsRef<Path>,
    family: Family,
    naming: Naming,
    tensors: &StateDict,
) -> Result<()> {
    let mut tensors = export(family, naming, tensors)?;
    if naming == Naming::Mmdet {
        tensors = tensors.into_iter().map(|(n, t)| (format!("backbone.{n}"), t)).collect();
    }
    write(path, &tensors)
}

/// Writes `tensors` to `path` by the names that they have. The path's ending decides the form:
/// `.safetensors`, `.pth` (or `.pt`), `.pkl`.
///
/// # Errors
/// Another ending, or a file that cannot be written; then `path` is as it was.
pub fn write(path: impl AsRef<Path>, tensors: &StateDict) -> Result<()> {
    let path = path.as_ref();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => write_safetensors(path, tensors, &Default::default()),
        Some("pkl") => write_pkl(path, tensors),
        Some("pth" | "pt") => write_pth(path, tensors),
        _ => Err(Error::invalid(
            "output",
            path.display(),
            "it must end in .pth, .pkl or .safetensors",
        )),
    }
}
