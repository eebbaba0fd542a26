//! Archives written again: whole, with other tensors, or small, for a checkpoint to carry.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Seek, Write};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::archive::{Archive, NOTES, SAMPLE_INPUTS};
use super::payload::Payload;
use crate::weights::dtype::{bytes_of, element_count, is_float};
use crate::weights::walk::budget;
use crate::weights::{StateDict, atomic};
use crate::{Error, Result};

/// PyTorch's own alignment of tensors in a file, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

impl Archive {
    /// A small archive for [`Archive::from_bytes`]: the graph, the notes, and the storages of the
    /// tensors that `keep` names. Without the example inputs.
    ///
    /// # Errors
    /// Tensors that cannot be read out.
    pub fn to_bytes(&self, keep: &dyn Fn(&str) -> bool) -> Result<Vec<u8>> {
        let mut out = Entries::new(&self.origin, "archive", Cursor::new(Vec::new()));
        for (name, bytes) in &self.entries {
            if !name.starts_with(SAMPLE_INPUTS) {
                out.add(name, bytes, CompressionMethod::Deflated)?;
            }
        }
        let notes =
            serde_json::to_vec(&self.notes).map_err(|e| Error::io(&self.origin, e.into()))?;
        out.add(NOTES, &notes, CompressionMethod::Deflated)?;
        let kept: BTreeSet<&String> = self
            .payloads
            .iter()
            .filter(|payload| keep(&payload.name))
            .map(|payload| &payload.storage)
            .collect();
        for name in kept {
            if let Some(storage) = self.storages.get(name) {
                // Numbers of weights hardly shrink.
                out.add(name, &bytes_of(storage)?, CompressionMethod::Stored)?;
            }
        }
        Ok(out.finish()?.into_inner())
    }

    /// Writes a `.pt2` file to `path`, which `torch.export.load` reads: this archive with `tensors`
    /// in place of its own of the same names. They keep the archive's types and strides.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a tensor that the archive has not, or of another shape; tensors of
    /// one storage that differ; one that is neither given nor in the archive. [`Error::Io`].
    pub fn write(&self, path: &Path, tensors: &StateDict) -> Result<()> {
        self.check_given(tensors)?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let folder = stem.filter(|stem| !stem.is_empty()).unwrap_or("archive".into());
        atomic::write(path, |file| {
            let mut out = Entries::new(path, &folder, file);
            for (name, users) in self.users() {
                let storage = self.filled(name, &users, tensors)?;
                out.add(name, &bytes_of(&storage)?, CompressionMethod::Stored)?;
            }
            for (name, bytes) in &self.entries {
                out.add(name, bytes, CompressionMethod::Stored)?;
            }
            let inputs = format!("{SAMPLE_INPUTS}{}.pt", self.network);
            if self.entries.iter().all(|(name, _)| *name != inputs) {
                out.add(&inputs, b"", CompressionMethod::Stored)?;
            }
            out.finish().map(drop)
        })
    }

    fn check_given(&self, tensors: &StateDict) -> Result<()> {
        for (name, tensor) in tensors {
            let origin = self.origin.display();
            let payload = self.payload(name).ok_or_else(|| {
                Error::invalid("a tensor", format!("{name:?}"), format!("{origin} has none such"))
            })?;
            let layout = &payload.layout;
            if tensor.size() != layout.shape {
                return Err(Error::invalid(
                    format!("the shape of {name:?}"),
                    format!("{:?}", tensor.size()),
                    format!("{origin} has it as {:?}", layout.shape),
                ));
            }
            let kind = layout.kind.ok_or_else(|| {
                Error::invalid(format!("the type of {name:?}"), layout.dtype, layout.refusal())
            })?;
            let given = tensor.f_kind()?;
            if given != kind && !(is_number(given) && is_number(kind)) {
                return Err(Error::invalid(
                    format!("the type of {name:?}"),
                    format!("{given:?}"),
                    format!("{origin} has it as {kind:?}"),
                ));
            }
        }
        Ok(())
    }

    /// The tensors of each storage.
    fn users(&self) -> BTreeMap<&String, Vec<&Payload>> {
        let mut users: BTreeMap<&String, Vec<&Payload>> = BTreeMap::new();
        for payload in &self.payloads {
            users.entry(&payload.storage).or_default().push(payload);
        }
        users
    }

    /// The storage called `name` with what is given of its tensors.
    fn filled(&self, name: &str, users: &[&Payload], tensors: &StateDict) -> Result<Tensor> {
        let given: Vec<(&Payload, &Tensor)> =
            users.iter().filter_map(|&p| Some((p, tensors.get(&p.name)?))).collect();
        let storage = match self.storages.get(name) {
            Some(storage) if given.is_empty() => return Ok(storage.shallow_clone()),
            Some(storage) => storage.f_detach_copy()?,
            None => empty_storage(users, &given)?,
        };
        for (payload, tensor) in &given {
            write_over(payload, &storage, tensor)?;
        }
        // What one of them wrote, another may have written over.
        if given.len() > 1 || given.iter().any(|(payload, _)| payload.layout.overlaps()) {
            for (payload, tensor) in &given {
                check_written(payload, &storage, tensor)?;
            }
        }
        Ok(storage)
    }
}

/// Types of numbers, which are converted into one another if both are floats.
fn is_number(kind: Kind) -> bool {
    use Kind::{Float8e4m3fn, Float8e4m3fnuz, Float8e5m2, Float8e5m2fnuz};
    is_float(kind) || matches!(kind, Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz)
}

/// Zeros for a storage that the archive lacks, if all its tensors are `given`.
fn empty_storage(users: &[&Payload], given: &[(&Payload, &Tensor)]) -> Result<Tensor> {
    for user in users {
        if !given.iter().any(|(payload, _)| payload.layout == user.layout) {
            return Err(Error::Weights(format!(
                "the tensor {:?} is neither given nor in the archive",
                user.name
            )));
        }
    }
    let bytes = users.iter().map(|user| user.layout.storage_bytes()).max().unwrap_or(0);
    let known: usize = given.iter().map(|(payload, _)| payload.layout.bytes()).sum();
    if bytes > budget(known) {
        return Err(Error::Weights(format!(
            "the storage of {:?} has {bytes} bytes, much more than its tensors",
            users[0].name
        )));
    }
    Ok(Tensor::f_zeros([bytes as i64], (Kind::Uint8, tch::Device::Cpu))?)
}

/// Writes `tensor` to its place in `storage`.
fn write_over(payload: &Payload, storage: &Tensor, tensor: &Tensor) -> Result<()> {
    if element_count(&payload.layout.shape) == Some(0) {
        return Ok(());
    }
    let mut place = view(payload, storage)?;
    let mut values = tensor.f_detach()?;
    // Along an expanded axis all elements are one: libtorch does not write to it as a whole.
    for (axis, &stride) in payload.layout.strides.iter().enumerate() {
        if stride == 0 {
            place = place.f_narrow(axis as i64, 0, 1)?;
            values = values.f_narrow(axis as i64, 0, 1)?;
        }
    }
    Ok(place.f_copy_(&values)?)
}

/// `tensor` is what `storage` has in its place.
fn check_written(payload: &Payload, storage: &Tensor, tensor: &Tensor) -> Result<()> {
    let written = view(payload, storage)?;
    let given = tensor.f_detach()?.f_to_kind(written.f_kind()?)?;
    if bytes_of(&written)? == bytes_of(&given)? {
        return Ok(());
    }
    Err(Error::Weights(format!(
        "{:?} is tied to other tensors in the archive, and what is given for them differs",
        payload.name
    )))
}

fn view(payload: &Payload, storage: &Tensor) -> Result<Tensor> {
    let view = payload.layout.view(storage);
    view.map_err(|problem| Error::Weights(format!("{:?} {problem}", payload.name)))
}

/// A zip file in the making, all entries in one folder.
struct Entries<'a, W: Write + Seek> {
    path: &'a Path,
    folder: &'a str,
    zip: ZipWriter<W>,
}

impl<'a, W: Write + Seek> Entries<'a, W> {
    fn new(path: &'a Path, folder: &'a str, out: W) -> Self {
        Self { path, folder, zip: ZipWriter::new(out) }
    }

    fn add(&mut self, name: &str, bytes: &[u8], method: CompressionMethod) -> Result<()> {
        let mut options = SimpleFileOptions::default()
            .compression_method(method)
            .large_file(bytes.len() > u32::MAX as usize);
        if method == CompressionMethod::Stored {
            options = options.with_alignment(ALIGNMENT);
        }
        self.zip
            .start_file(format!("{}/{name}", self.folder), options)
            .map_err(|e| Error::io(self.path, e.into()))?;
        self.zip.write_all(bytes).map_err(|source| Error::io(self.path, source))
    }

    fn finish(self) -> Result<W> {
        self.zip.finish().map_err(|e| Error::io(self.path, e.into()))
    }
}
