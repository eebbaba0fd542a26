//! From an archive to a network's steps.

use std::collections::HashMap;

use super::lower::{Lowered, Step, StepKind, lower, name_of, stages_of_calls};
use super::rules::Analysis;
use super::ssa::{Ssa, ValueId};
use super::stages::{Finder, Levels};
use crate::Stage;
use crate::pt2::{Archive, Program};

/// The note of an archive that names the stages' modules.
pub(super) const STAGES: &str = "stages";

/// An operator without a meaning on visible patches.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub node: usize,
    pub reason: String,
}

/// What a network and its model share.
#[derive(Debug)]
pub(super) struct Parts {
    pub program: Program,
    pub network: Lowered,
    /// Names of parameters, buffers and constants by value.
    pub names: HashMap<ValueId, String>,
    pub stages: Vec<Stage>,
    pub in_chans: i64,
    /// Pixels of a mask patch's side.
    pub total_stride: i64,
    pub refusal: Option<String>,
    /// By name of a parameter or buffer: the first stage that needs it.
    pub stages_of_names: HashMap<String, usize>,
    /// The layer that a parameter belongs to, from the image on.
    pub layers: HashMap<String, usize>,
}

impl Parts {
    /// A node as a reader knows it: operator, module, the user's line.
    pub fn describe_node(&self, node: usize) -> String {
        describe_node(&self.program, node)
    }
}

/// A node as a reader knows it: operator, module, the user's line.
fn describe_node(program: &Program, node: usize) -> String {
    let node = &program.nodes[node];
    let operator = node.target.trim_start_matches("torch.ops.").trim_end_matches(".default");
    let module = match node.module.as_str() {
        "" => String::new(),
        module => format!(" in {module}"),
    };
    let class = node.class.rsplit('.').next().filter(|class| !class.is_empty());
    let class = class.map_or_else(String::new, |class| format!(" ({class})"));
    match &node.location {
        Some((place, code)) if !code.is_empty() => {
            format!("{operator}{module}{class}, {place}: `{}`", code.trim())
        }
        Some((place, _)) => format!("{operator}{module}{class}, {place}"),
        None => format!("{operator}{module}{class}"),
    }
}

/// What is found of an archive's graph.
pub(super) struct Analysed {
    pub parts: Parts,
    pub levels: Levels,
    pub verdicts: Vec<Refused>,
}

/// Labels and lowers the graph as far as its stages need it, or, if `whole`, what it returns.
pub(super) fn analyse(archive: &Archive, whole: bool) -> std::result::Result<Analysed, String> {
    let program = archive.program().clone();
    let ssa = Ssa::new(&program)?;
    let is_tensor = |id: &&ValueId| program.tensors.contains_key(&ssa.values[**id].name);
    let images: Vec<ValueId> = ssa.user_inputs.iter().filter(is_tensor).copied().collect();
    let [image] = images[..] else {
        return Err(format!(
            "its network takes {} tensors, but a backbone takes one: a batch of images",
            images.len()
        ));
    };
    let analysis = Analysis::new(&ssa, image)?;
    let chosen = archive.note(STAGES).unwrap_or("").split(',').filter(|module| !module.is_empty());
    let chosen: Vec<String> = chosen.map(str::to_owned).collect();
    let finder = Finder { program: &program, ssa: &ssa, analysis: &analysis, image };
    let levels = finder.find(&chosen)?;
    let heads = if whole { ssa.outputs.clone() } else { Vec::new() };
    let needed = stages_of_calls(&ssa, &analysis, &levels, &heads);
    let calls = ssa.calls.iter().zip(&needed).zip(&analysis.refusals);
    let refused = calls.filter(|((_, needed), _)| needed.is_some());
    let mut verdicts = Vec::new();
    for ((call, _), reason) in refused {
        let Some(reason) = reason else { continue };
        // Whatever it runs on, values that changed unseen would be wrong.
        if call.stale.is_some() {
            return Err(format!("{}: {reason}", describe_node(&program, call.node)));
        }
        verdicts.push(Refused { node: call.node, reason: reason.clone() });
    }
    let network = lower(&ssa, &analysis, &levels, &heads, image)
        .map_err(|error| format!("its graph cannot be run: {error}"))?;
    let stages: Vec<Stage> = levels
        .levels
        .iter()
        .map(|level| Stage { channels: level.channels, stride: level.stride })
        .collect();
    let total_stride = stages.last().map_or(1, |stage| stage.stride);
    let refusal = match verdicts.first() {
        Some(first) => Some(refusal_of(&program, first, &verdicts)),
        None => uneven_stride(&network, total_stride),
    };
    let names = (0..ssa.values.len())
        .filter_map(|id| Some((id, name_of(&ssa, id)?.to_owned())))
        .collect::<HashMap<_, _>>();
    let parts = Parts {
        layers: layers_by_name(&network, &names),
        in_chans: ssa.values[image].size[1],
        stages_of_names: stages_by_name(&network, &names),
        program,
        network,
        names,
        stages,
        total_stride,
        refusal,
    };
    Ok(Analysed { parts, levels, verdicts })
}

/// The sentence about a network that cannot be pretrained.
fn refusal_of(program: &Program, first: &Refused, all: &[Refused]) -> String {
    let more = match all.len() {
        1 => String::new(),
        count => format!(" (and {} more operators)", count - 1),
    };
    format!(
        "{}: {}{more}. It has no meaning on visible patches alone; --stages may name modules before \
         it, or another operator may take its place. Detection and embedding, which see whole \
         images, run it as it is",
        describe_node(program, first.node),
        first.reason
    )
}

/// A patch must be whole at every grid that the network passes through.
fn uneven_stride(network: &Lowered, total: i64) -> Option<String> {
    let strides = network.steps.iter().flat_map(|step| &step.outputs).filter_map(|&id| {
        let layout = &network.layouts[id];
        let extent = layout.map_extent().or(layout.channels_last_extent())?;
        network.extents.get(extent).stride
    });
    let uneven =
        strides.into_iter().find(|(down, across)| total % down != 0 || total % across != 0);
    uneven.map(|(down, across)| {
        format!(
            "it passes through a grid of stride {down}×{across}, but its coarsest stage has stride \
             {total}: name a coarser stage with --stages"
        )
    })
}

/// By name: the first stage whose steps read it.
fn stages_by_name(network: &Lowered, names: &HashMap<ValueId, String>) -> HashMap<String, usize> {
    let mut stages = HashMap::new();
    for step in &network.steps {
        for id in reads_with_norm(network, step) {
            if let Some(name) = names.get(&id) {
                stages.entry(name.clone()).or_insert(step.stage);
            }
        }
    }
    // Counters that nothing reads stand beside the means.
    let counters: Vec<(String, usize)> = stages
        .iter()
        .filter_map(|(name, &stage)| {
            Some((format!("{}num_batches_tracked", name.strip_suffix("running_mean")?), stage))
        })
        .collect();
    stages.extend(counters);
    stages
}

/// The values that a step reads, those of its batch norm among them.
fn reads_with_norm(network: &Lowered, step: &Step) -> Vec<ValueId> {
    let mut reads = step.kind.reads();
    if let StepKind::BatchNorm { norm, .. } = &step.kind {
        let norm = &network.norms[*norm];
        reads.extend([norm.mean, norm.var]);
        reads.extend(norm.weight.into_iter().chain(norm.bias));
    }
    reads
}

/// By name: the number of its layer. A layer is an entry of a list of modules (`blocks.3`), or the
/// module itself where it is in none.
fn layers_by_name(network: &Lowered, names: &HashMap<ValueId, String>) -> HashMap<String, usize> {
    let mut order: Vec<String> = Vec::new();
    let mut layers = HashMap::new();
    for step in &network.steps {
        for id in reads_with_norm(network, step) {
            let Some(name) = names.get(&id) else { continue };
            let parts: Vec<&str> = name.split('.').collect();
            let numbered = parts
                .iter()
                .take(parts.len() - 1)
                .rposition(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
            let end = numbered.map_or(parts.len().saturating_sub(2).max(1), |at| at + 1);
            let layer = parts[..end].join(".");
            let number = order.iter().position(|own| *own == layer).unwrap_or_else(|| {
                order.push(layer);
                order.len() - 1
            });
            layers.entry(name.clone()).or_insert(number);
        }
    }
    layers
}
