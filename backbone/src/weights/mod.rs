//! Weight files of every framework, read and written.
//!
//! One file a format: [`read`] takes `.safetensors`, PyTorch checkpoints of
//! every age, exported programs (`.pt2`), detectron2's `.pkl` and timm folders,
//! told apart by content, and never executes a pickle. One file a naming: [`Naming`] translates between
//! the names a model has in memory (the *canonical* names) and those of timm,
//! the official repositories, torchvision, detectron2 and mmdet.
//!
//! Typical use:
//! ```no_run
//! # fn main() -> backbone::Result<()> {
//! # let model = backbone::weights::StateDict::new();
//! use backbone::models::Family;
//! use backbone::weights::{self, LoadOptions, Naming};
//!
//! let file = weights::read("resnet50.pth")?;
//! let report = weights::load(&model, Family::ResNet, &file, &LoadOptions::default())?;
//! println!("{report}");
//! let foreign = weights::export(Family::ResNet, Naming::Detectron2, &model)?;
//! weights::write_pkl("resnet50.pkl", &foreign)?;
//! # Ok(())
//! # }
//! ```

pub(crate) mod atomic;
mod convert;
mod detect;
pub(crate) mod dtype;
pub(crate) mod element;
mod export;
mod finite;
mod fit;
mod inspect;
mod load;
mod naming;
mod numpy;
mod pickle;
mod pkl;
mod pkl_write;
mod pt2;
mod pth_write;
mod registry;
mod report;
mod safetensors;
mod save;
mod sharded;
mod sketch;
mod timm_folder;
mod torch;
mod unwrap;
pub(crate) mod walk;
pub(crate) mod zip_file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::Tensor;

use crate::{Error, Result, hub};

pub use convert::stem_weight;
pub use detect::Format;
pub use export::export;
pub use finite::{check_finite, not_finite};
pub use inspect::{Candidate, Inspection, ModelMatch, inspect};
pub use load::{LoadOptions, default_optional, is_counter, load};
pub use naming::Naming;
pub use pkl_write::write_pkl;
pub use pth_write::write_pth;
pub use registry::{candidate_of, candidates};
pub use report::{LoadReport, Mismatch};
pub use safetensors::{SAFETENSORS_TYPES, write_safetensors};
pub use save::{save, write};
pub use sketch::Sketch;
pub use timm_folder::{TimmConfig, timm_classifier, write_timm_folder};

/// Tensors by name, on the CPU, in the order of their names.
pub type StateDict = BTreeMap<String, Tensor>;

/// What a weight file holds.
#[derive(Debug)]
pub struct WeightFile {
    /// Where it was read from; names the file in later messages.
    pub path: PathBuf,
    /// Every weight by the name it has in the file. A dictionary that wraps
    /// all of them (`{"model": …}`) is taken off; names that begin alike
    /// (`module.…`) are left as they are. Optimizer state is left out.
    pub tensors: StateDict,
    /// What kind of file it is.
    pub format: Format,
    /// The text, numbers and flags that lie beside the weights.
    pub metadata: BTreeMap<String, String>,
    /// Tensors that are not among [`WeightFile::tensors`], and why: `is sparse`.
    pub left_out: BTreeMap<String, String>,
}

impl WeightFile {
    /// Tensors that come from no file, as if read from one called `name`.
    pub fn from_tensors(name: impl Into<PathBuf>, tensors: StateDict) -> Self {
        WeightFile {
            path: name.into(),
            tensors,
            format: Format::Safetensors,
            metadata: BTreeMap::new(),
            left_out: BTreeMap::new(),
        }
    }
}

/// Reads the weight file, or timm folder, at `path`, which may name one on a hub
/// ([`hub::local`]). The content decides what it is, never the extension.
///
/// # Errors
/// [`Error::Hub`] when it cannot be fetched; [`Error::Io`] when the system can't read it; [`Error::Format`] when it is
/// no weight file (the message says what it seems to be), is damaged, or holds
/// no tensors.
pub fn read(path: impl AsRef<Path>) -> Result<WeightFile> {
    let path = &*hub::local(path.as_ref())?;
    let format = detect::format_of(path)?;
    let file = match format {
        Format::Safetensors => safetensors::read(path)?,
        Format::TorchZip | Format::TorchLegacy | Format::TorchTar => torch::read(path, format)?,
        Format::ExportedProgram => pt2::read(path)?,
        Format::Pickle => pkl::read(path)?,
        Format::TimmFolder => timm_folder::read(path)?,
        Format::Sharded => sharded::read(path)?,
    };
    if file.tensors.is_empty() {
        return Err(Error::format(path, format!("a {format} that holds no weights")));
    }
    Ok(file)
}

#[cfg(test)]
pub(crate) mod tests;
