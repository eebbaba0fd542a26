//! Which calls the stages need, and the network that these are.

use std::collections::{HashMap, HashSet};

use super::super::rules::Analysis;
use super::super::ssa::{Call, Ssa, ValueId};
use super::super::stages::Levels;
use super::{Lowered, Lowering, Step, StepKind};
use crate::Result;
use crate::layers::Activation;
use crate::pt2::Source;

/// The values that a call's step reads.
fn reads(call: &Call, analysis: &Analysis) -> Vec<ValueId> {
    match call.operator.as_str() {
        // Drop-path's draws depend on the batch's size alone.
        "bernoulli" => Vec::new(),
        // What padded its input is a part of a convolution.
        "conv2d" => Ssa::reads(call)
            .map(|id| analysis.paddings[id].as_ref().map_or(id, |padding| padding.source))
            .collect(),
        _ => Ssa::reads(call).collect(),
    }
}

/// By call: the first stage that needs it, 0 being the stem; `heads` are a stage behind the last.
pub(in crate::graph) fn stages_of_calls(
    ssa: &Ssa,
    analysis: &Analysis,
    levels: &Levels,
    heads: &[ValueId],
) -> Vec<Option<usize>> {
    let mut stages = vec![None; ssa.calls.len()];
    let stem = levels.stem.into_iter().map(|id| (0, id));
    let count = levels.levels.len();
    let targets = stem
        .chain(levels.levels.iter().enumerate().map(|(i, level)| (i + 1, level.value)))
        .chain(heads.iter().map(|&head| (count + 1, head)));
    for (stage, target) in targets {
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            let Some(call) = ssa.values[id].producer else { continue };
            if stages[call].is_none() {
                stages[call] = Some(stage);
                open.extend(reads(&ssa.calls[call], analysis));
            }
        }
    }
    stages
}

/// The network of the calls that the levels and `heads` need.
///
/// # Errors
/// An operator that this libtorch has not.
pub(in crate::graph) fn lower(
    ssa: &Ssa,
    analysis: &Analysis,
    levels: &Levels,
    heads: &[ValueId],
    image: ValueId,
) -> Result<Lowered> {
    let stage_of_call = stages_of_calls(ssa, analysis, levels, heads);
    let needed = || ssa.calls.iter().zip(&stage_of_call).filter(|(_, stage)| stage.is_some());
    let mut uses = vec![0; ssa.values.len()];
    for (call, _) in needed() {
        for id in reads(call, analysis) {
            uses[id] += 1;
        }
    }
    let outputs: Vec<ValueId> = levels.levels.iter().map(|level| level.value).collect();
    for &id in outputs.iter().chain(heads) {
        uses[id] += 1;
    }
    let any_norm_trains = needed().any(|(call, _)| {
        call.operator == "batch_norm"
            && call.value("running_mean").is_some()
            && call.flag("training") == Some(true)
    });
    let mut lowering = Lowering {
        ssa,
        analysis,
        stage_of_call: stage_of_call.clone(),
        uses,
        any_norm_trains,
        norms: Vec::new(),
        drop_path: Vec::new(),
        dropouts: 0,
        done: HashSet::new(),
        draws: HashMap::new(),
    };
    let mut steps = lowering.steps()?;
    mark_last_uses(&mut steps, outputs.iter().chain(heads));
    let Lowering { norms, drop_path, dropouts, .. } = lowering;
    Ok(Lowered {
        steps,
        norms,
        drop_path,
        dropouts,
        layouts: analysis.layouts.clone(),
        extents: analysis.extents.clone(),
        values: ssa.values.len(),
        image,
        outputs,
        heads: heads.to_vec(),
    })
}

fn mark_last_uses<'a>(steps: &mut [Step], outputs: impl Iterator<Item = &'a ValueId>) {
    let mut seen: HashSet<ValueId> = outputs.copied().collect();
    for step in steps.iter_mut().rev() {
        for id in step.kind.reads() {
            if seen.insert(id) {
                step.last_uses.push(id);
            }
        }
    }
}

impl StepKind {
    /// The values that the step reads.
    pub(in crate::graph) fn reads(&self) -> Vec<ValueId> {
        match self {
            Self::Convolution(conv) => {
                let mut reads = vec![conv.input, conv.weight];
                reads.extend(conv.bias);
                reads
            }
            Self::BatchNorm { input, .. }
            | Self::Activation { input, .. }
            | Self::GlobalPool { input, .. }
            | Self::Relabel { input }
            | Self::Dropout { input, .. } => vec![*input],
            Self::LayerNorm { input, weight, bias, .. } => vec![*input, *weight, *bias],
            Self::Linear { input, weight, bias } => {
                let mut reads = vec![*input, *weight];
                reads.extend(*bias);
                reads
            }
            Self::Add { left, right } => vec![*left, *right],
            Self::DropPath { .. } => Vec::new(),
            Self::Mul { call, .. }
            | Self::MaxPool { call, .. }
            | Self::AvgPool { call, .. }
            | Self::Generic(call)
            | Self::Pad { call, .. }
            | Self::OnGrid { call, .. } => call.reads(),
        }
    }

    /// A word for what it is.
    pub(in crate::graph) fn name(&self) -> String {
        match self {
            Self::Convolution(conv) if conv.groups > 1 => "grouped convolution".into(),
            Self::Convolution(_) => "convolution".into(),
            Self::BatchNorm { activation: Activation::Identity, .. } => "batch norm".into(),
            Self::BatchNorm { .. } => "batch norm with activation".into(),
            Self::LayerNorm { .. } => "layer norm".into(),
            Self::Linear { .. } => "linear".into(),
            Self::Activation { activation, .. } => format!("{activation:?}").to_lowercase(),
            Self::Add { .. } => "sum".into(),
            Self::Mul { .. } => "drop-path product".into(),
            Self::MaxPool { .. } => "max-pool".into(),
            Self::AvgPool { .. } => "average pool".into(),
            Self::GlobalPool { .. } => "global pool".into(),
            Self::Relabel { .. } => "view".into(),
            Self::DropPath { .. } => "drop-path draw".into(),
            Self::Dropout { .. } => "dropout".into(),
            Self::Pad { .. } => "padding".into(),
            Self::Generic(call) | Self::OnGrid { call, .. } => {
                let name = format!("{:?}", call.operator);
                let name = name.trim_start_matches("aten::");
                name.split('.').next().unwrap_or(name).to_owned()
            }
        }
    }
}

impl super::GenericCall {
    fn reads(&self) -> Vec<ValueId> {
        use super::super::ssa::Arg;
        let values = self.arguments.iter().flatten().flat_map(|argument| match argument {
            Arg::Value(id) => vec![*id],
            Arg::Values(ids) => ids.iter().flatten().copied().collect(),
            Arg::Literal(_) => Vec::new(),
        });
        values.collect()
    }
}

/// Which of the graph's inputs a value is.
pub(in crate::graph) fn name_of(ssa: &Ssa, id: ValueId) -> Option<&str> {
    match ssa.values[id].source.as_ref()? {
        Source::Parameter(name) | Source::Buffer(name) | Source::Constant(name) => Some(name),
        Source::User => None,
    }
}
