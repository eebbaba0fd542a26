//! detectron2's `.pkl`: `{"model": {name: array}, "__author__": …,
//! "matching_heuristics": True}`, readable by `pickle.load` with any numpy.

use std::io::{self, Write};
use std::path::Path;

use tch::Kind;

use super::dtype::{bytes_of, storable_kind};
use super::pickle::Emitter;
use super::{StateDict, atomic};
use crate::{Error, Result};

/// Writes `tensors`, which bear detectron2's names, to `path`. numpy has no
/// bfloat16: such tensors become float32, which holds the same numbers.
///
/// # Errors
/// [`Error::Io`] naming `path`; [`Error::Invalid`] for a type no file holds.
pub fn write_pkl(path: impl AsRef<Path>, tensors: &StateDict) -> Result<()> {
    let path = path.as_ref();
    for (name, tensor) in tensors {
        storable_kind(name, tensor)?;
    }
    let io = |source| Error::io(path, source);
    atomic::write(path, |out| {
        // Protocol 4: the first that has bytes of any length, Python 3.4.
        let mut pickle = Emitter::new(out, 4).map_err(io)?;
        begin(&mut pickle).map_err(io)?;
        for (name, tensor) in tensors {
            let kind = storable_kind(name, tensor)?;
            let (kind, bytes) = match kind {
                Kind::BFloat16 => (Kind::Float, bytes_of(&tensor.f_to_kind(Kind::Float)?)?),
                kind => (kind, bytes_of(tensor)?),
            };
            pickle.text(name).map_err(io)?;
            array(&mut pickle, &tensor.size(), kind, &bytes).map_err(io)?;
        }
        end(pickle).map_err(io)
    })
}

/// Everything up to the first name.
fn begin<W: Write>(pickle: &mut Emitter<W>) -> io::Result<()> {
    pickle.empty_dict()?;
    pickle.mark()?;
    pickle.text("model")?;
    pickle.empty_dict()?;
    pickle.mark()
}

/// Everything after the last array.
fn end<W: Write>(mut pickle: Emitter<W>) -> io::Result<()> {
    pickle.set_items()?;
    pickle.text("__author__")?;
    pickle.text("spark-backbone")?;
    // Without it detectron2 wants the full names of a detector.
    pickle.text("matching_heuristics")?;
    pickle.bool(true)?;
    pickle.set_items()?;
    pickle.finish()
}

/// A `numpy.ndarray`, in the form every numpy reads: an empty array that is
/// then given shape, type and bytes. The module path is the one of numpy 1,
/// which numpy 2 keeps for old pickles.
fn array<W: Write>(
    pickle: &mut Emitter<W>,
    shape: &[i64],
    kind: Kind,
    bytes: &[u8],
) -> io::Result<()> {
    pickle.global("numpy.core.multiarray", "_reconstruct")?;
    pickle.mark()?;
    pickle.global("numpy", "ndarray")?;
    pickle.int_tuple(&[0])?;
    pickle.bytes(b"b")?;
    pickle.tuple()?;
    pickle.reduce()?;
    pickle.mark()?;
    pickle.int(1)?;
    pickle.int_tuple(shape)?;
    dtype(pickle, kind)?;
    pickle.bool(false)?;
    pickle.bytes(bytes)?;
    pickle.tuple()?;
    pickle.build()
}

/// A `numpy.dtype`.
fn dtype<W: Write>(pickle: &mut Emitter<W>, kind: Kind) -> io::Result<()> {
    let code = match kind {
        Kind::Double => "f8",
        Kind::Half => "f2",
        Kind::Int64 => "i8",
        Kind::Int => "i4",
        Kind::Int16 => "i2",
        Kind::Int8 => "i1",
        Kind::Uint8 => "u1",
        Kind::Bool => "b1",
        _ => "f4", // the callers leave only float32
    };
    pickle.global("numpy", "dtype")?;
    pickle.mark()?;
    pickle.text(code)?;
    pickle.bool(false)?;
    pickle.bool(true)?;
    pickle.tuple()?;
    pickle.reduce()?;
    pickle.mark()?;
    pickle.int(3)?;
    pickle.text(if kind.elt_size_in_bytes() == 1 { "|" } else { "<" })?;
    (0..3).try_for_each(|_| pickle.none())?;
    pickle.int(-1)?;
    pickle.int(-1)?;
    pickle.int(0)?;
    pickle.tuple()?;
    pickle.build()
}
