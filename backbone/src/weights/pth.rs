//! PyTorch checkpoints (`.pth`, `.pt`, `.bin`) of every age, read without
//! executing the pickle in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pytorch_reader::{DType, PickleValue, PytorchReader};
use tch::Kind;

use super::dtype::tensor_from_bytes;
use super::unwrap::{unwrap, with_wrapper};
use super::{Format, StateDict, WeightFile};
use crate::{Error, Result};

/// Reads the checkpoint at `path`, already known to be of `format`.
///
/// # Errors
/// [`Error::Format`] when it is damaged, no checkpoint after all, or holds a
/// tensor libtorch has no counterpart of.
pub(crate) fn read(path: &Path, format: Format) -> Result<WeightFile> {
    if format == Format::TorchZip {
        check_archive(path)?;
    }
    let unreadable = |e: &dyn std::fmt::Display| {
        Error::format(path, format!("a {format} that can't be read: {e}"))
    };
    let reader = PytorchReader::new(path).map_err(|e| unreadable(&e))?;
    let tree = PytorchReader::read_pickle_data(path, None).map_err(|e| unreadable(&e))?;
    let mut tensors = StateDict::new();
    for (name, tensor) in reader.into_tensors() {
        if super::unwrap::is_training_state(&name) {
            continue; // twice the size of the weights: not even read
        }
        let kind = kind_of(tensor.dtype()).ok_or_else(|| {
            let problem = format!("{name:?} is of type {:?}, which libtorch lacks", tensor.dtype());
            Error::format(path, problem)
        })?;
        let shape: Vec<i64> = tensor.shape().iter().map(|&side| side as i64).collect();
        let bytes = tensor.read().map_err(|e| unreadable(&e))?;
        let read = tensor_from_bytes(&bytes, &shape, kind)
            .map_err(|problem| unreadable(&format!("{name:?} {problem}")))?;
        tensors.insert(name, read);
    }
    let mut found = Beside::default();
    found.visit(&tree, "");
    let wrapper = unwrap(&mut tensors, &found.dictionaries);
    let metadata = with_wrapper(found.metadata, wrapper);
    Ok(WeightFile { path: path.into(), tensors, format, metadata })
}

/// Says what a zip archive is when it is no checkpoint.
fn check_archive(path: &Path) -> Result<()> {
    let file = std::fs::File::open(path).map_err(|source| Error::io(path, source))?;
    let archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| {
        Error::format(path, format!("a damaged zip archive, perhaps cut short: {e}"))
    })?;
    let has = |end: &str| archive.file_names().flatten().any(|name| name.ends_with(end));
    let problem = if has("constants.pkl") {
        "a TorchScript archive; save its weights with \
         torch.save(torch.jit.load(FILE).state_dict(), …)"
    } else if has("data.pkl") {
        return Ok(());
    } else if has(".npy") {
        "a numpy archive (.npz)"
    } else {
        "a zip archive, but no PyTorch checkpoint: it has no data.pkl. Unpack it first"
    };
    Err(Error::format(path, problem))
}

/// What a checkpoint has beside tensors.
#[derive(Default)]
struct Beside {
    /// Dotted paths of the dictionaries.
    dictionaries: BTreeSet<String>,
    /// Text, numbers and flags of the outermost dictionary.
    metadata: BTreeMap<String, String>,
}

impl Beside {
    fn visit(&mut self, value: &PickleValue, path: &str) {
        let outermost = !path.is_empty() && !path.contains('.');
        let text = match value {
            PickleValue::Dict(items) => {
                self.dictionaries.insert(path.to_owned());
                for (key, item) in items {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.visit(item, &below);
                }
                return;
            }
            PickleValue::Bool(value) => value.to_string(),
            PickleValue::Int(value) => value.to_string(),
            PickleValue::Float(value) => value.to_string(),
            PickleValue::String(value) => value.clone(),
            _ => return,
        };
        if outermost {
            self.metadata.insert(path.to_owned(), text);
        }
    }
}

fn kind_of(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::F64 => Kind::Double,
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::I16 => Kind::Int16,
        DType::I8 => Kind::Int8,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
        DType::U64 | DType::U32 | DType::U16 => return None,
    })
}
