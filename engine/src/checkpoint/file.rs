//! The checkpoint file: tensors in named sections (`model.<name>`,
//! `optimizer.<name>`, …) and the rest of the state as JSON in the header.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use backbone::weights::SAFETENSORS_TYPES as TYPES;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};
use data::write_atomically;

/// The header entry that tells a checkpoint from other files. It is the only
/// one: entries have no fixed order, and equal runs give equal files.
const ENTRY: &str = "spark_checkpoint";
/// Version of the layout described above.
const VERSION: u32 = 1;
/// Largest header that the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Serialize, Deserialize)]
struct Entry<S> {
    version: u32,
    state: S,
}

/// Writes a checkpoint to `path`, whole or not at all. `state` is whatever
/// the trainer needs besides tensors: epoch, step, best loss, scaler, config.
///
/// # Errors
/// [`Error::Input`] for a section name with a dot, a tensor of a kind that
/// the format does not know, or a state that JSON does not; [`Error::Input`].
pub fn write_checkpoint(
    path: &Path,
    sections: &[(&str, &BTreeMap<String, Tensor>)],
    state: &impl Serialize,
) -> Result<()> {
    write_atomically(path, |temporary| write_tensors(temporary, sections, state))
}

pub(super) fn write_tensors(
    path: &Path,
    sections: &[(&str, &BTreeMap<String, Tensor>)],
    state: &impl Serialize,
) -> Result<()> {
    let entry = serde_json::to_string(&Entry { version: VERSION, state })
        .map_err(|e| Error::invalid("the checkpoint's state", "not serializable", e.to_string()))?;
    let tensors = named(sections)?;
    let header = header(&tensors, entry)
        .map_err(|problem| Error::checkpoint(path, format!("cannot be written: {problem}")))?;
    write_bytes(path, &header, &tensors).map_err(|e| Error::io(path, e))
}

/// All tensors by full name, wider types first: with a header that is a
/// multiple of 8 bytes long, every tensor then starts at a multiple of its
/// element size.
fn named<'a>(
    sections: &[(&str, &'a BTreeMap<String, Tensor>)],
) -> Result<Vec<(String, Dtype, &'a Tensor)>> {
    let mut all = Vec::new();
    for (section, tensors) in sections {
        if section.contains('.') {
            let rule = "a section's name ends at the first dot";
            return Err(Error::invalid("a checkpoint section", section, rule));
        }
        for (name, tensor) in *tensors {
            let name = format!("{section}.{name}");
            let Some(dtype) = dtype(tensor.kind()) else {
                let rule = "safetensors stores bool, integers up to 64 bit and floats only";
                return Err(Error::invalid(name, format!("{:?}", tensor.kind()), rule));
            };
            all.push((name, dtype, tensor));
        }
    }
    all.sort_by(|(a, wide, _), (b, wider, _)| wider.bitsize().cmp(&wide.bitsize()).then(a.cmp(b)));
    Ok(all)
}

/// The length and the JSON header, padded to a multiple of 8 bytes.
fn header(
    tensors: &[(String, Dtype, &Tensor)],
    entry: String,
) -> std::result::Result<Vec<u8>, String> {
    let mut start = 0;
    let infos = tensors.iter().map(|(name, dtype, tensor)| {
        let end = start + byte_length(tensor);
        let shape = tensor.size().into_iter().map(|n| n as usize).collect();
        let info = TensorInfo { dtype: *dtype, shape, data_offsets: (start, end) };
        start = end;
        (name.clone(), info)
    });
    let entries = HashMap::from([(ENTRY.to_owned(), entry)]);
    let metadata =
        Metadata::new(Some(entries), infos.collect()).map_err(|error| error.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() as u64 > MAX_HEADER {
        return Err(format!("its header would take {} of at most {MAX_HEADER} bytes", json.len()));
    }
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// Brings one tensor at a time to the host and writes it.
fn write_bytes(
    path: &Path,
    header: &[u8],
    tensors: &[(String, Dtype, &Tensor)],
) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(header)?;
    let mut bytes = Vec::new();
    for (_, _, tensor) in tensors {
        let host = tensor.detach().to_device(Device::Cpu);
        bytes.resize(byte_length(tensor), 0);
        host.copy_data_u8(&mut bytes, host.numel());
        file.write_all(&bytes)?;
    }
    file.flush()
}

fn byte_length(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

/// An open checkpoint whose header has been read and found sound; the tensors
/// are read section by section.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    state: serde_json::Value,
}

impl CheckpointFile {
    /// Opens `path` and checks that it is a whole checkpoint.
    ///
    /// # Errors
    /// [`Error::Input`]; [`Error::Checkpoint`] for another format, a cut-off
    /// file, a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::checkpoint(path, problem);
        let io = |e| Error::io(path, e);
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let header = read_header(path, &mut file, size)?;
        let data_start = 8 + header.len() as u64;

        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| wrong(format!("not a checkpoint: its header is malformed ({e})")))?;
        let whole = data_start + metadata.data_len() as u64;
        if size < whole {
            let problem = format!("cut off: {size} of {whole} bytes; use an earlier checkpoint");
            return Err(wrong(problem));
        }
        if size > whole {
            return Err(wrong(format!("{size} bytes long, but its header describes {whole}")));
        }
        let entry = metadata.metadata().as_ref().and_then(|entries| entries.get(ENTRY));
        let entry = entry.ok_or_else(|| {
            wrong("weights without a training state: nothing can be resumed from it".into())
        })?;
        let entry: Entry<serde_json::Value> = serde_json::from_str(entry)
            .map_err(|e| wrong(format!("its training state is malformed ({e})")))?;
        if entry.version != VERSION {
            let found = entry.version;
            return Err(wrong(format!("of layout {found}, but this program reads {VERSION}")));
        }
        let tensors = metadata.tensors().into_iter().map(|(k, info)| (k, info.clone())).collect();
        Ok(CheckpointFile { path: path.to_owned(), file, data_start, tensors, state: entry.state })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state that was saved beside the tensors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it does not have the form of `S`.
    pub fn state<S: DeserializeOwned>(&self) -> Result<S> {
        S::deserialize(&self.state).map_err(|e| {
            Error::checkpoint(&self.path, format!("its training state is of another form: {e}"))
        })
    }

    /// The names of the sections.
    pub fn sections(&self) -> BTreeSet<&str> {
        self.tensors.keys().filter_map(|name| Some(name.split_once('.')?.0)).collect()
    }

    /// The tensors of one section by their names within it, on the CPU.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such section; [`Error::Input`].
    pub fn section(&self, section: &str) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, info) in &self.tensors {
            match name.split_once('.') {
                Some((own, rest)) if own == section => {
                    tensors.insert(rest.to_owned(), self.read(name, info)?);
                }
                _ => {}
            }
        }
        if tensors.is_empty() {
            let found: Vec<&str> = self.sections().into_iter().collect();
            let problem = format!("no section {section}; it has: {}", found.join(", "));
            return Err(Error::checkpoint(&self.path, problem));
        }
        Ok(tensors)
    }

    fn read(&self, name: &str, info: &TensorInfo) -> Result<Tensor> {
        let wrong = |problem| Error::checkpoint(&self.path, problem);
        let kind = kind(info.dtype)
            .ok_or_else(|| wrong(format!("{name} is {:?}, which torch has not", info.dtype)))?;
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&self.path, e))?;
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        Tensor::f_from_data_size(&bytes, &shape, kind)
            .map_err(|e| wrong(format!("{name} cannot be read: {e}")))
    }
}

/// The JSON header of a file of `size` bytes.
fn read_header(path: &Path, file: &mut File, size: u64) -> Result<Vec<u8>> {
    let wrong = |problem: String| Err(Error::checkpoint(path, problem));
    let mut start = [0; 8];
    if size < 8 {
        return wrong(format!("cut off: {size} bytes; use an earlier checkpoint"));
    }
    file.read_exact(&mut start).map_err(|e| Error::io(path, e))?;
    if start.starts_with(b"PK\x03\x04") {
        let problem = "a zip file (.pth?), not a checkpoint of this program: \
                       weights can be taken from it, a run cannot be resumed from it";
        return wrong(problem.into());
    }
    let length = u64::from_le_bytes(start);
    if length > MAX_HEADER {
        return wrong("not a checkpoint: no safetensors file".into());
    }
    if length > size - 8 {
        return wrong(format!("cut off within its header at {size} bytes, or another format"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(|e| Error::io(path, e))?;
    Ok(header)
}

fn dtype(kind: Kind) -> Option<Dtype> {
    TYPES.iter().find(|(k, _)| *k == kind).map(|(_, dtype)| *dtype)
}

fn kind(dtype: Dtype) -> Option<Kind> {
    TYPES.iter().find(|(_, d)| *d == dtype).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests;
