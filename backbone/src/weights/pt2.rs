//! The weights in a program that `torch.export.save` wrote: its state dict.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::torch::{Storage, View};
use super::walk::{budget, tensor_of};
use super::{Format, StateDict, WeightFile};
use crate::pt2::{Container, Payload, header, network, weights};
use crate::{Error, Result};

type Outcome<T> = std::result::Result<T, String>;

/// Reads the exported program at `path`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] when it is damaged or of a release that is not known.
pub(crate) fn read(path: &Path) -> Result<WeightFile> {
    let format = Format::ExportedProgram;
    let io = |source| Error::io(path, source);
    let source = File::open(path).map_err(io)?;
    let size = source.metadata().map_err(io)?.len() as usize;
    let mut file = WeightFile {
        path: path.to_owned(),
        tensors: StateDict::new(),
        format,
        metadata: BTreeMap::new(),
        left_out: BTreeMap::new(),
    };
    fill(&mut file, BufReader::new(source), size).map_err(|problem| {
        Error::format(path, format!("an {format} that can't be read: {problem}"))
    })?;
    Ok(file)
}

fn fill(file: &mut WeightFile, source: BufReader<File>, size: usize) -> Outcome<()> {
    let mut container = Container::open(source, size)?;
    let network = network(&container)?;
    let header = header(&mut container, &network)?;
    let schema = format!("{}.{}", header.schema_version.major, header.schema_version.minor);
    file.metadata.insert("torch_version".into(), header.torch_version);
    file.metadata.insert("schema_version".into(), schema);
    let mut by_storage: BTreeMap<String, Vec<Payload>> = BTreeMap::new();
    for payload in weights(&mut container, &network)? {
        by_storage.entry(payload.storage.clone()).or_default().push(payload);
    }
    let mut budget = budget(size);
    for (storage, payloads) in by_storage {
        let bytes = container.read(&storage)?;
        for Payload { name, layout, .. } in payloads {
            let element = layout.element();
            let read = match element.refusal() {
                Some(refusal) => Err(refusal),
                None => {
                    let view = View {
                        storage: Storage::Named(storage.clone()),
                        element,
                        offset: layout.offset,
                        shape: layout.shape,
                        strides: layout.strides,
                    };
                    tensor_of(&view, &bytes, false, &mut budget)
                        .map_err(|problem| format!("{name:?} {problem}"))?
                }
            };
            match read {
                Ok(tensor) => drop(file.tensors.insert(name, tensor)),
                Err(why) => drop(file.left_out.insert(name, why)),
            }
        }
    }
    Ok(())
}
