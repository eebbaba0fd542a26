//! `.safetensors`: a JSON header, then the tensors' bytes.
//! Reference: <https://huggingface.co/docs/safetensors>.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use ::safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::dtype::{bytes_of, element_count, storable_kind};
use super::element::Element;
use super::{Format, StateDict, WeightFile, atomic};
use crate::{Error, Result};

/// Reads the file at `path`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] when it is damaged.
pub(crate) fn read(path: &Path) -> Result<WeightFile> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    let damaged = |problem: &dyn std::fmt::Display| {
        Error::format(path, format!("a damaged safetensors file: {problem}"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
    let (mut tensors, mut left_out) = (StateDict::new(), BTreeMap::new());
    for (name, view) in file.tensors() {
        let shape =
            signed(view.shape()).ok_or_else(|| damaged(&format!("the shape of {name:?}")))?;
        let read = match Element::of_safetensors(view.dtype()) {
            Some(element) => element.tensor(view.data(), &shape),
            None => Err(format!("is of type {}, which no weights here have", view.dtype())),
        };
        match read {
            Ok(tensor) => drop(tensors.insert(name, tensor)),
            Err(why) => drop(left_out.insert(name, why)),
        }
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(WeightFile { path: path.into(), tensors, format: Format::Safetensors, metadata, left_out })
}

/// Writes `tensors` and `metadata` to `path`. The same content gives the same
/// bytes: names and metadata are in order.
///
/// # Errors
/// [`Error::Io`] naming `path`; [`Error::Invalid`] for a type no file holds.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let order = storage_order(tensors)?;
    let header = header(&order, tensors, metadata)?;
    atomic::write(path, |out| {
        let io = |source| Error::io(path, source);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(&header).map_err(io)?;
        for (name, _) in &order {
            out.write_all(&bytes_of(&tensors[*name])?).map_err(io)?;
        }
        Ok(())
    })
}

/// Names and types, widest elements first so that each tensor is aligned.
fn storage_order(tensors: &StateDict) -> Result<Vec<(&str, Dtype)>> {
    let mut order = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), dtype_of(name, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    order.sort_by_key(|(_, dtype)| std::cmp::Reverse(dtype.bitsize()));
    Ok(order)
}

/// The JSON header. Written here and not by the crate, whose metadata is a
/// hash map and comes out in another order each time.
fn header(
    order: &[(&str, Dtype)],
    tensors: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let mut offset = 0;
    for &(name, dtype) in order {
        if name == "__metadata__" {
            return Err(Error::invalid("a tensor's name", name, "safetensors reserves it"));
        }
        let shape = tensors[name].size();
        let end = offset + element_count(&shape).unwrap_or(0) * dtype.bitsize() / 8;
        entries.insert(
            name.into(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn signed(shape: &[usize]) -> Option<Vec<i64>> {
    shape.iter().map(|&side| i64::try_from(side).ok()).collect()
}

/// Which kind of tensor safetensors stores as which type.
pub const SAFETENSORS_TYPES: [(Kind, Dtype); 10] = [
    (Kind::Double, Dtype::F64),
    (Kind::Float, Dtype::F32),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Int16, Dtype::I16),
    (Kind::Int8, Dtype::I8),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

fn dtype_of(name: &str, tensor: &Tensor) -> Result<Dtype> {
    let kind = storable_kind(name, tensor)?;
    let known = SAFETENSORS_TYPES.iter().find(|(known, _)| *known == kind).map(|(_, dtype)| *dtype);
    known.ok_or_else(|| Error::invalid(name, format!("{kind:?}"), "safetensors has no such type"))
}
