//! A `.pt2` file in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::container::{Container, FORMAT};
use super::parse;
use super::payload::{self, Payload};
use super::program::{Program, Source, TensorMeta};
use crate::weights::walk::budget;
use crate::{Error, Result};

type Outcome<T> = std::result::Result<T, String>;

/// Where the notes lie.
pub(super) const NOTES: &str = "extra/spark_notes.json";
/// Example inputs, a pickle: `torch.export.load` does without, but for an empty entry.
pub(super) const SAMPLE_INPUTS: &str = "data/sample_inputs/";

/// An exported network: its graph, its tensors, and what else its file holds, to be written again.
pub struct Archive {
    pub(super) origin: PathBuf,
    program: Program,
    /// The name of the network among the entries; `torch.export.save` writes `model`.
    pub(super) network: String,
    /// All entries but the storages, in order.
    pub(super) entries: Vec<(String, Vec<u8>)>,
    /// All tensors, those of the state dict first.
    pub(super) payloads: Vec<Payload>,
    /// In `payloads`, by name.
    places: HashMap<String, usize>,
    /// The storages' bytes by their entries' names.
    pub(super) storages: BTreeMap<String, Tensor>,
    tensors: BTreeMap<String, Tensor>,
    left_out: BTreeMap<String, String>,
    pub(super) notes: BTreeMap<String, String>,
}

impl Archive {
    /// Reads the file at `path`. Nothing in it is executed.
    ///
    /// # Errors
    /// [`Error::Io`] when the system can't read it; [`Error::Format`] when it is no exported
    /// program, one of a release that is not known, or damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::io(path, source);
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len() as usize;
        Self::read(path, BufReader::new(file), size, false)
    }

    /// What [`Archive::to_bytes`] wrote, or a whole `.pt2` file; tensors may be missing. `origin`
    /// is what errors call it.
    ///
    /// # Errors
    /// [`Error::Format`], as [`Archive::open`].
    pub fn from_bytes(origin: &Path, bytes: &[u8]) -> Result<Self> {
        Self::read(origin, Cursor::new(bytes), bytes.len(), true)
    }

    fn read<R: Read + Seek>(path: &Path, reader: R, size: usize, may_lack: bool) -> Result<Self> {
        Self::read_entries(path, reader, size, may_lack).map_err(|problem| {
            Error::format(path, format!("an exported program that can't be read: {problem}"))
        })
    }

    fn read_entries<R: Read + Seek>(
        path: &Path,
        reader: R,
        size: usize,
        may_lack: bool,
    ) -> Outcome<Self> {
        let mut container = Container::open(reader, size)?;
        check_headers(&mut container)?;
        let network = payload::network(&container)?;
        let model = payload::model_entry(&network);
        let json = container.read(&model)?;
        let program =
            parse::program(&json).map_err(|problem| format!("its entry {model:?}: {problem}"))?;
        let mut payloads = payload::weights(&mut container, &network)?;
        payloads.extend(payload::constants(&mut container, &network)?);
        let places = places(&payloads)?;
        let storages = payload::storages(&mut container, &payloads, may_lack)?;
        let (tensors, left_out) = views(&payloads, &storages, budget(size))?;
        let notes = notes(&mut container)?;
        let mut entries = rest(&mut container, &payloads, &model)?;
        entries.push((model, json));
        let archive = Self {
            origin: path.to_owned(),
            program,
            network,
            entries,
            payloads,
            places,
            storages,
            tensors,
            left_out,
            notes,
        };
        archive.check_inputs()?;
        Ok(archive)
    }

    /// The tensors that the graph asks for are there.
    fn check_inputs(&self) -> Outcome<()> {
        for input in &self.program.inputs {
            let (Source::Parameter(stored) | Source::Buffer(stored) | Source::Constant(stored)) =
                &input.source
            else {
                continue;
            };
            let meta = self.meta(stored);
            let meta = meta.ok_or_else(|| {
                format!("its graph asks for the tensor {stored:?}, and none is stored")
            })?;
            let expected = self.program.tensors.get(&input.name);
            if expected.is_some_and(|expected| *expected != meta) {
                return Err(format!(
                    "{stored:?} is {expected:?} in the graph, but stored as {meta:?}"
                ));
            }
        }
        Ok(())
    }

    /// The graph.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Parameters, buffers and constants by the names that they have in the state dict or the
    /// code, with the file's strides. Tensors that share a storage in the file do so here.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Tensors that are not among [`Archive::tensors`], though the file holds them, and why:
    /// `is of type uint16, which is not read`.
    pub fn left_out(&self) -> &BTreeMap<String, String> {
        &self.left_out
    }

    /// Type and shape of the stored tensor `name`, whether or not its values are there.
    pub fn meta(&self, name: &str) -> Option<TensorMeta> {
        self.payload(name).map(|payload| payload.layout.meta())
    }

    /// Whether the stored tensor `name` is a parameter.
    pub fn is_parameter(&self, name: &str) -> bool {
        self.payload(name).is_some_and(|payload| payload.is_parameter)
    }

    /// The names of the state dict: parameters and persistent buffers, in order.
    pub fn state_names(&self) -> impl Iterator<Item = &str> {
        let state = self.payloads.iter().filter(|payload| payload.persistent);
        state.map(|payload| payload.name.as_str())
    }

    /// The note called `key`.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    /// Has [`Archive::to_bytes`] carry `text` along.
    pub fn set_note(&mut self, key: &str, text: &str) {
        self.notes.insert(key.to_owned(), text.to_owned());
    }

    /// The storage of the stored tensor `name`: tied tensors have one.
    pub fn storage(&self, name: &str) -> Option<&str> {
        self.payload(name).map(|payload| payload.storage.as_str())
    }

    pub(super) fn payload(&self, name: &str) -> Option<&Payload> {
        self.places.get(name).map(|&place| &self.payloads[place])
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("origin", &self.origin)
            .field("nodes", &self.program.nodes.len())
            .field("tensors", &self.payloads.len())
            .finish_non_exhaustive()
    }
}

/// What an archive says of itself is what can be read.
fn check_headers<R: Read + Seek>(container: &mut Container<R>) -> Outcome<()> {
    if container.text(FORMAT)? != "pt2" {
        return Err(format!("its entry {FORMAT:?} does not say pt2"));
    }
    for (entry, known) in [("archive_version", "0"), ("byteorder", "little")] {
        if !container.has(entry) {
            continue;
        }
        let found = container.text(entry)?;
        if found != known {
            return Err(format!(
                "its entry {entry:?} says {found:?}, and only {known:?} is read; export the \
                 network again with PyTorch 2.9 to 2.15 on an ordinary machine"
            ));
        }
    }
    Ok(())
}

fn places(payloads: &[Payload]) -> Outcome<HashMap<String, usize>> {
    let mut places = HashMap::with_capacity(payloads.len());
    for (place, payload) in payloads.iter().enumerate() {
        if places.insert(payload.name.clone(), place).is_some() {
            let name = &payload.name;
            return Err(format!("{name:?} is both in the state dict and among the constants"));
        }
    }
    Ok(places)
}

type Views = (BTreeMap<String, Tensor>, BTreeMap<String, String>);

/// The tensors over their storages, and why others are left out.
fn views(
    payloads: &[Payload],
    storages: &BTreeMap<String, Tensor>,
    mut budget: usize,
) -> Outcome<Views> {
    let (mut tensors, mut left_out) = Views::default();
    for Payload { name, storage, layout, .. } in payloads {
        let Some(bytes) = storages.get(storage) else { continue };
        if layout.kind.is_none() {
            left_out.insert(name.clone(), layout.refusal());
            continue;
        }
        // Views take no memory, but what is copied of them does.
        budget = budget.checked_sub(layout.bytes()).ok_or_else(|| {
            format!(
                "{name:?} of shape {:?} takes more memory than the file accounts for",
                layout.shape
            )
        })?;
        let tensor = layout.view(bytes).map_err(|problem| format!("{name:?} {problem}"))?;
        tensors.insert(name.clone(), tensor);
    }
    Ok((tensors, left_out))
}

/// The entries beside `model` that are written again as they are.
fn rest<R: Read + Seek>(
    container: &mut Container<R>,
    payloads: &[Payload],
    model: &str,
) -> Outcome<Vec<(String, Vec<u8>)>> {
    let storages: std::collections::HashSet<&str> =
        payloads.iter().map(|payload| payload.storage.as_str()).collect();
    let stale = |name: &str| {
        // The hash of the content, and code that was compiled with the old weights.
        name == ".data/serialization_id"
            || name.starts_with("data/aotinductor/")
            || name.starts_with("data/executorch/")
    };
    let names = container.names().iter();
    let names = names.filter(|name| !storages.contains(name.as_str()) && !stale(name));
    let names = names.filter(|name| *name != NOTES && *name != model);
    let names: Vec<String> = names.cloned().collect();
    names.into_iter().map(|name| Ok((name.clone(), container.read(&name)?))).collect()
}

fn notes<R: Read + Seek>(container: &mut Container<R>) -> Outcome<BTreeMap<String, String>> {
    if !container.has(NOTES) {
        return Ok(BTreeMap::new());
    }
    let json = container.read(NOTES)?;
    serde_json::from_slice(&json).map_err(|e| format!("its entry {NOTES:?}: {e}"))
}
