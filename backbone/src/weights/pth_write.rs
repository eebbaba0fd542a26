//! PyTorch checkpoints that `torch.load(weights_only=True)` accepts: a zip
//! archive with a pickle of names and shapes, and one entry a tensor.
//! Reference: `torch/serialization.py`.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use tch::Kind;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::dtype::{bytes_of, element_count, storable_kind};
use super::pickle::Emitter;
use super::{StateDict, atomic};
use crate::{Error, Result};

/// The folder inside the archive; torch uses the file's name, any will do.
const ROOT: &str = "archive";
/// torch's own alignment of tensor data, so that `mmap=True` works.
const ALIGNMENT: u16 = 64;

/// Writes `tensors` to `path` as a bare state dict.
///
/// # Errors
/// [`Error::Io`] naming `path`; [`Error::Invalid`] for a type no file holds.
pub fn write_pth(path: impl AsRef<Path>, tensors: &StateDict) -> Result<()> {
    let path = path.as_ref();
    let pickle = state_dict_pickle(path, tensors)?;
    atomic::write(path, |out| {
        let mut archive = Archive { path, zip: zip::ZipWriter::new(out) };
        archive.entry("data.pkl", &pickle)?;
        archive.entry("byteorder", b"little")?;
        for (index, tensor) in tensors.values().enumerate() {
            archive.entry(&format!("data/{index}"), &bytes_of(tensor)?)?;
        }
        archive.entry("version", b"3\n")?;
        archive.zip.finish().map_err(|e| Error::io(path, e.into()))?;
        Ok(())
    })
}

struct Archive<'a, 'f> {
    path: &'a Path,
    zip: zip::ZipWriter<&'a mut BufWriter<&'f std::fs::File>>,
}

impl Archive<'_, '_> {
    /// One entry, stored as it is: torch reads no compressed ones by mmap, and
    /// weights hardly shrink.
    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(bytes.len() > u32::MAX as usize);
        self.zip
            .start_file(format!("{ROOT}/{name}"), options)
            .map_err(|e| Error::io(self.path, e.into()))?;
        self.zip.write_all(bytes).map_err(|source| Error::io(self.path, source))
    }
}

/// The pickle: an `OrderedDict` from names to tensors whose data lies in the
/// entries `data/0`, `data/1`, … in the order of the names.
fn state_dict_pickle(path: &Path, tensors: &StateDict) -> Result<Vec<u8>> {
    let io = |source| Error::io(path, source);
    let mut bytes = Vec::new();
    let mut pickle = Emitter::new(&mut bytes, 2).map_err(io)?;
    ordered_dict(&mut pickle).map_err(io)?;
    pickle.mark().map_err(io)?;
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        let kind = storable_kind(name, tensor)?;
        pickle.text(name).map_err(io)?;
        entry(&mut pickle, index, &tensor.size(), kind).map_err(io)?;
    }
    pickle.set_items().map_err(io)?;
    pickle.finish().map_err(io)?;
    Ok(bytes)
}

/// `torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
fn entry<W: Write>(
    pickle: &mut Emitter<W>,
    index: usize,
    shape: &[i64],
    kind: Kind,
) -> io::Result<()> {
    pickle.global("torch._utils", "_rebuild_tensor_v2")?;
    pickle.mark()?;
    pickle.mark()?;
    pickle.text("storage")?;
    pickle.global("torch", storage_class(kind))?;
    pickle.text(&index.to_string())?;
    pickle.text("cpu")?;
    pickle.int(element_count(shape).unwrap_or(0) as i64)?;
    pickle.tuple()?;
    pickle.persistent_id()?;
    pickle.int(0)?;
    pickle.int_tuple(shape)?;
    pickle.int_tuple(&row_major_strides(shape))?;
    pickle.bool(false)?;
    ordered_dict(pickle)?;
    pickle.tuple()?;
    pickle.reduce()
}

fn ordered_dict<W: Write>(pickle: &mut Emitter<W>) -> io::Result<()> {
    pickle.global("collections", "OrderedDict")?;
    pickle.empty_tuple()?;
    pickle.reduce()
}

fn storage_class(kind: Kind) -> &'static str {
    match kind {
        Kind::Double => "DoubleStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        Kind::Int64 => "LongStorage",
        Kind::Int => "IntStorage",
        Kind::Int16 => "ShortStorage",
        Kind::Int8 => "CharStorage",
        Kind::Uint8 => "ByteStorage",
        Kind::Bool => "BoolStorage",
        _ => "FloatStorage", // the only one of the storable kinds that is left
    }
}

fn row_major_strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}
