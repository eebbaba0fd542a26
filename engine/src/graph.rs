//! Networks from `.pt2` files in runs: a checkpoint carries its own, so that nobody needs the file
//! again.

use std::collections::BTreeMap;
use std::path::Path;

use backbone::graph::GraphModel;
use backbone::models::{self, Model, short_name};
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::CheckpointFile;
use crate::distributed::ProcessGroup;
use crate::remote::find_model;
use crate::run_dir::resolve_checkpoint;
use crate::training::ResumeMode;
use crate::{Error, Result};

/// The section of a checkpoint that holds a network.
pub const GRAPH_SECTION: &str = "graph";
/// Its only tensor, of bytes.
const ARCHIVE: &str = "archive";
/// Settings that have a network's name, in any of our programs.
const NAMES: [&str; 2] = ["model", "backbone"];

/// What a checkpoint holds of a network from a file.
///
/// # Errors
/// Tensors that cannot be written.
pub fn graph_section(graph: &GraphModel) -> Result<BTreeMap<String, Tensor>> {
    let archive = Tensor::from_slice(&graph.to_bytes()?);
    Ok(BTreeMap::from([(ARCHIVE.to_owned(), archive)]))
}

/// The network that a checkpoint carries; none if it is of a registered model.
///
/// # Errors
/// A checkpoint that cannot be read, or carries what is no network.
pub fn carried(file: &CheckpointFile) -> Result<Option<Model>> {
    if !file.sections().contains(GRAPH_SECTION) {
        return Ok(None);
    }
    let section = file.section(GRAPH_SECTION)?;
    let broken = |problem: String| {
        Error::checkpoint(file.path(), format!("the network that it carries is broken: {problem}"))
    };
    let archive = section.get(ARCHIVE).ok_or_else(|| broken(format!("no {ARCHIVE}")))?;
    let bytes = Vec::<u8>::try_from(archive).map_err(|error| broken(error.to_string()))?;
    let name = saved_name(file)?.unwrap_or_default();
    let graph = GraphModel::from_bytes(short_name(&name), &bytes)
        .map_err(|error| broken(error.to_string()))?;
    Ok(Some(Model::of_graph(graph)))
}

/// The network that the run or checkpoint at `path`, of any of our programs, carries; none if it
/// carries none, or `path` is something else.
///
/// # Errors
/// As [`carried`]; a run without checkpoint yet.
pub fn carried_by(path: &Path) -> Result<Option<Model>> {
    let file = CheckpointFile::open(&resolve_checkpoint(path)?);
    file.map_or(Ok(None), |file| carried(&file))
}

/// What the network was called in the settings that a checkpoint was saved with.
fn saved_name(file: &CheckpointFile) -> Result<Option<String>> {
    let state: Value = file.state()?;
    let name = NAMES.iter().find_map(|key| state["config"][*key].as_str());
    Ok(name.map(str::to_owned))
}

/// The model called `name` that a run in the folder `output` trains: of a run that goes on the one
/// that its checkpoint carries, whatever has become of the file. Rank 0 alone reads files; all
/// processes call, and those of the others have no weights yet.
///
/// # Errors
/// No such model; a file, or a checkpoint, that cannot be read; processes that cannot be reached.
pub fn model_of_run(
    name: &str,
    output: &Path,
    start: &ResumeMode,
    world: &ProcessGroup,
) -> Result<Model> {
    if let Some(model) = models::registered(name)? {
        return Ok(model.clone());
    }
    let own = world.is_main().then(|| carried_or_read(name, output, start)).transpose();
    let own = world.all_ok(own)?;
    if let Some(model) = own.as_ref().filter(|_| world.is_alone()) {
        return Ok(model.clone());
    }
    let bytes = own.as_ref().and_then(Model::graph).map(|graph| graph.to_bytes()).transpose();
    let bytes = world.all_ok(bytes.map_err(Error::from))?.unwrap_or_default();
    let bytes = world.bytes_of_main(&bytes)?;
    let received = || {
        let graph = GraphModel::from_bytes(short_name(name), &bytes)?;
        Ok::<_, Error>(Model::of_graph(graph))
    };
    world.all_ok(own.map_or_else(received, Ok))
}

fn carried_or_read(name: &str, output: &Path, start: &ResumeMode) -> Result<Model> {
    let Some(file) = start.find(output)? else { return find_model(name) };
    let Some(model) = carried(&file)? else { return find_model(name) };
    if let Some(saved) = saved_name(&file)?.filter(|saved| saved != name) {
        eprintln!("note: what goes on is the network that the checkpoint carries, {saved}");
    }
    Ok(model)
}
