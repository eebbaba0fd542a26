//! The tensors of an archive: which there are, and their storages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use tch::{Kind, Tensor};

use super::container::Container;
use super::layout::Layout;
use super::parse;
use super::wire::{Header, PayloadConfig, PayloadMeta};

type Outcome<T> = std::result::Result<T, String>;

/// A tensor of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// Its name in the state dict or among the constants.
    pub(crate) name: String,
    /// The entry that holds its storage, which several tensors may share.
    pub(crate) storage: String,
    pub(crate) layout: Layout,
    /// Whether it is trained.
    pub(super) is_parameter: bool,
    /// Whether it is in the state dict.
    pub(super) persistent: bool,
}

/// The two folders of tensors, and what the names of their lists end in.
const WEIGHTS: (&str, &str) = ("data/weights/", "_weights_config.json");
const CONSTANTS: (&str, &str) = ("data/constants/", "_constants_config.json");

/// The name of the one network in an archive.
///
/// # Errors
/// A sentence: there is none, or there are several.
pub(crate) fn network<R: Read + Seek>(container: &Container<R>) -> Outcome<String> {
    let names = container.names().iter();
    let mut names = names.filter_map(|name| name.strip_prefix("models/")?.strip_suffix(".json"));
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (Some(first), Some(second)) => Err(format!(
            "it holds several networks, {first:?} and {second:?} among them; save the one \
             with torch.export.save"
        )),
        (None, _) if container.names().iter().any(|n| n.starts_with("data/aotinductor/")) => Err(
            "it holds compiled code and no graph; save the network itself with torch.export.save"
                .into(),
        ),
        (None, _) => Err("it holds no network: there is no models/….json in it".into()),
    }
}

/// The entry of the network called `network`.
pub(super) fn model_entry(network: &str) -> String {
    format!("models/{network}.json")
}

/// Release and schema of the network.
///
/// # Errors
/// A sentence: it is of a schema that is not known.
pub(crate) fn header<R: Read + Seek>(
    container: &mut Container<R>,
    network: &str,
) -> Outcome<Header> {
    let entry = model_entry(network);
    parse::header(&container.read(&entry)?).map_err(|e| format!("its entry {entry:?}: {e}"))
}

/// The tensors of the network's state dict, in its order.
///
/// # Errors
/// A sentence: which entry is missing or wrong.
pub(crate) fn weights<R: Read + Seek>(
    container: &mut Container<R>,
    network: &str,
) -> Outcome<Vec<Payload>> {
    list(container, network, WEIGHTS)
}

/// The tensors beside the network's state dict: buffers left out of it, and constants.
///
/// # Errors
/// As [`weights`].
pub(crate) fn constants<R: Read + Seek>(
    container: &mut Container<R>,
    network: &str,
) -> Outcome<Vec<Payload>> {
    list(container, network, CONSTANTS)
}

fn list<R: Read + Seek>(
    container: &mut Container<R>,
    network: &str,
    (folder, ending): (&str, &str),
) -> Outcome<Vec<Payload>> {
    if container.has(&format!("{folder}{network}.pt")) {
        return Err("PyTorch 2.8 wrote it, with its weights as a pickle, and pickles are not \
                    read; in PyTorch 2.9 or later, torch.export.save(torch.export.load(FILE), FILE) \
                    writes it anew"
            .into());
    }
    let entry = format!("{folder}{network}{ending}");
    let config: PayloadConfig = serde_json::from_slice(&container.read(&entry)?)
        .map_err(|e| format!("its entry {entry:?}: {e}"))?;
    let mut payloads = Vec::new();
    for (name, meta) in config.config.0 {
        let payload = payload(&name, meta, folder);
        let payload = payload.map_err(|e| format!("its entry {entry:?}: {name:?} {e}"))?;
        let payload = payload.map(|payload| Payload { persistent: folder == WEIGHTS.0, ..payload });
        if payload.as_ref().is_some_and(|payload| payload.storage == entry) {
            return Err(format!("its entry {entry:?}: {name:?} has that entry as its storage"));
        }
        payloads.extend(payload);
    }
    Ok(payloads)
}

/// One tensor of a list; none if it is an object of another kind.
fn payload(name: &str, meta: PayloadMeta, folder: &str) -> Outcome<Option<Payload>> {
    let PayloadMeta { path_name, is_param, use_pickle, tensor_meta } = meta;
    let Some(tensor_meta) = tensor_meta else {
        return if use_pickle { Ok(None) } else { Err("has neither type nor shape".into()) };
    };
    if use_pickle {
        return Err(
            "is a tensor of a class of its own (quantised or distributed) and stored as a \
                    pickle, and pickles are not read; export the network with plain tensors"
                .into(),
        );
    }
    if path_name.is_empty() || path_name.contains(['/', '\\']) {
        return Err(format!("lies in {path_name:?}, which is not in the folder of the weights"));
    }
    Ok(Some(Payload {
        name: name.to_owned(),
        storage: format!("{folder}{path_name}"),
        layout: Layout::of(&tensor_meta)?,
        is_parameter: is_param,
        persistent: false,
    }))
}

/// The storages of `payloads`, each once, as bytes. Those that have no entry are left out if
/// `may_lack`.
///
/// # Errors
/// A sentence: which entry is missing or damaged.
pub(super) fn storages<R: Read + Seek>(
    container: &mut Container<R>,
    payloads: &[Payload],
    may_lack: bool,
) -> Outcome<BTreeMap<String, Tensor>> {
    let names: BTreeSet<&String> = payloads.iter().map(|payload| &payload.storage).collect();
    let mut storages = BTreeMap::new();
    for name in names {
        if may_lack && !container.has(name) {
            continue;
        }
        let bytes = container.read(name)?;
        let storage = Tensor::f_from_data_size(&bytes, &[bytes.len() as i64], Kind::Uint8);
        let storage = storage.map_err(|e| format!("its entry {name:?}: {e}"))?;
        storages.insert(name.clone(), storage);
    }
    Ok(storages)
}
