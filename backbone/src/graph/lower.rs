//! From calls of operators to steps that run on every kind of feature map.

mod convolution;
mod fuse;
mod needed;

pub(super) use self::needed::{lower, name_of, stages_of_calls};

use std::collections::{HashMap, HashSet};

use super::axes::{Axis, Extents, Layout};
use super::operator::Operator;
use super::rules::{Analysis, Reach};
use super::ssa::{Arg, Call, Ssa, ValueId};
use crate::layers::{Activation, Sliding};
use crate::pt2::Value;
use crate::{Error, Result};

/// A step of a network.
#[derive(Debug)]
pub(super) struct Step {
    pub kind: StepKind,
    /// What it makes.
    pub outputs: Vec<ValueId>,
    /// The program's node.
    pub node: usize,
    /// 0 the stem, 1 the first stage, ….
    pub stage: usize,
    /// Values that nobody reads after it.
    pub last_uses: Vec<ValueId>,
}

/// What a step does.
#[derive(Debug)]
pub(super) enum StepKind {
    /// A 2-d convolution of a map.
    Convolution(ConvolutionStep),
    /// A batch norm with running statistics, and the activation behind it.
    BatchNorm {
        input: ValueId,
        /// Its number among the graph's batch norms.
        norm: usize,
        activation: Activation,
    },
    /// A layer norm over the channels of a map's positions.
    LayerNorm { input: ValueId, weight: ValueId, bias: ValueId, eps: f64 },
    /// A linear layer of the channels of a map's positions.
    Linear { input: ValueId, weight: ValueId, bias: Option<ValueId> },
    /// A pointwise function of a map; `in_place`: whatever made its input needs it no more.
    Activation { input: ValueId, activation: Activation, in_place: bool },
    /// The sum of two maps.
    Add { left: ValueId, right: ValueId },
    /// The product of a value with what drop-path kept.
    Mul { left: ValueId, right: ValueId, call: GenericCall },
    /// A max-pool.
    MaxPool { input: ValueId, sliding: Sliding, call: GenericCall },
    /// An average pool.
    AvgPool { input: ValueId, sliding: Sliding, count_include_pad: bool, call: GenericCall },
    /// Mean (or largest value) of all positions of a map, as a pool of the whole grid.
    GlobalPool { input: ValueId, is_mean: bool },
    /// Channels to the end or back: the same map.
    Relabel { input: ValueId },
    /// One draw an image: kept or dropped.
    DropPath { site: usize, scaled: bool },
    /// A draw for every element (or, `of_channels`, for every channel of an image).
    Dropout { input: ValueId, site: usize, rate: f64, of_channels: bool },
    /// Any operator that looks at no neighbours.
    Generic(GenericCall),
    /// What pads a map for a pool: a grid of its own.
    Pad { input: ValueId, call: GenericCall },
    /// An operator that looks at neighbours: on the grid.
    OnGrid { input: ValueId, call: GenericCall },
}

/// A convolution's arguments.
#[derive(Debug)]
pub(super) struct ConvolutionStep {
    pub input: ValueId,
    pub weight: ValueId,
    pub bias: Option<ValueId>,
    pub groups: i64,
    pub sliding: Sliding,
    /// Whether a batch norm alone takes its output.
    pub for_norm: bool,
    /// The operator that pads its input with something else than zeros, on the grid.
    pub pad: Option<GenericCall>,
}

/// A call of an operator through the dispatcher.
#[derive(Debug)]
pub(super) struct GenericCall {
    pub operator: Operator,
    /// By the operator's own order; none: the default.
    pub arguments: Vec<Option<Arg>>,
    /// The argument that holds the result's shape, and which of its axes from which on.
    pub shape: Option<(usize, ShapeOf)>,
    pub arithmetic: Arithmetic,
    /// The result's layouts.
    pub layouts: Vec<Layout>,
}

/// Which element type an operator computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// That of [`crate::Mode::compute`].
    Product,
    /// Parameters stay in their own.
    Norm,
    /// That of the maps.
    Other,
}

/// Which sizes a shape argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShapeOf {
    /// All.
    Whole,
    /// Height and width.
    Sides,
    /// Those from this axis on.
    From(usize),
}

/// A batch norm's tensors and numbers.
#[derive(Debug)]
pub(super) struct NormSpec {
    pub weight: Option<ValueId>,
    pub bias: Option<ValueId>,
    pub mean: ValueId,
    pub var: ValueId,
    pub momentum: f64,
    pub eps: f64,
    /// Whether it keeps to its running statistics although others train.
    pub frozen: bool,
}

/// A network as steps.
#[derive(Debug)]
pub(super) struct Lowered {
    pub steps: Vec<Step>,
    pub norms: Vec<NormSpec>,
    /// Rates of drop-path's draws as exported, in order.
    pub drop_path: Vec<f64>,
    pub dropouts: usize,
    pub layouts: Vec<Layout>,
    pub extents: Extents,
    pub values: usize,
    pub image: ValueId,
    /// The stages' maps.
    pub outputs: Vec<ValueId>,
    /// What the graph returns, where that is computed, too.
    pub heads: Vec<ValueId>,
}

/// Operators whose result is a product of weights, for which autocast chooses the type.
const PRODUCTS: &[&str] =
    &["linear", "addmm", "matmul", "bmm", "mm", "conv1d", "conv2d", "conv_transpose2d", "baddbmm"];

pub(super) struct Lowering<'a> {
    pub ssa: &'a Ssa,
    pub analysis: &'a Analysis,
    /// By call: the first stage that needs it; none: no stage does.
    pub stage_of_call: Vec<Option<usize>>,
    /// How many needed calls read a value; one more for each stage that it is.
    pub uses: Vec<usize>,
    /// Whether any batch norm was exported in training.
    pub any_norm_trains: bool,
    pub norms: Vec<NormSpec>,
    pub drop_path: Vec<f64>,
    pub dropouts: usize,
    /// Calls that another step does.
    pub done: HashSet<usize>,
    /// Draws of drop-path by value.
    pub draws: HashMap<ValueId, usize>,
}

impl Lowering<'_> {
    /// The steps of all needed calls.
    ///
    /// # Errors
    /// An operator that this libtorch has not.
    pub fn steps(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for index in 0..self.ssa.calls.len() {
            let Some(stage) = self.stage_of_call[index] else { continue };
            if self.done.contains(&index) {
                continue;
            }
            let call = &self.ssa.calls[index];
            // Padding that convolutions alone read is a part of them.
            let padding = call.outputs.first().filter(|&&id| self.analysis.paddings[id].is_some());
            if padding.is_some_and(|&id| self.uses[id] == 0) {
                continue;
            }
            let (kind, outputs) = self.step(index, call)?;
            steps.push(Step { kind, outputs, node: call.node, stage, last_uses: Vec::new() });
        }
        Ok(steps)
    }

    fn layout(&self, id: ValueId) -> &Layout {
        &self.analysis.layouts[id]
    }

    /// Whether a value is a map, its channels first or last.
    fn is_map(&self, id: ValueId) -> bool {
        let layout = self.layout(id);
        layout.map_extent().or(layout.channels_last_extent()).is_some()
    }

    fn step(&mut self, index: usize, call: &Call) -> Result<(StepKind, Vec<ValueId>)> {
        let outputs = call.outputs.clone();
        if let Some(kind) = self.draw(call) {
            let drawn = self.drawn(call);
            return Ok((kind, drawn));
        }
        if let Some((kind, outputs)) = self.layer(index, call)? {
            return Ok((kind, outputs));
        }
        let generic = self.generic(call)?;
        let padded = outputs.first().is_some_and(|&id| self.analysis.paddings[id].is_some());
        if let (true, Some(input)) = (padded, call.first()) {
            return Ok((StepKind::Pad { input, call: generic }, outputs));
        }
        let looks_around = self.analysis.reaches[index] == Reach::Neighbours;
        Ok(match call.first() {
            Some(input) if looks_around && self.layout(input).is_spatial() => {
                (StepKind::OnGrid { input, call: generic }, outputs)
            }
            _ => (StepKind::Generic(generic), outputs),
        })
    }

    /// The step of a call that one of the layers does.
    fn layer(&mut self, index: usize, call: &Call) -> Result<Option<(StepKind, Vec<ValueId>)>> {
        let outputs = call.outputs.clone();
        let Some(input) = call.first() else { return Ok(None) };
        let output_is_map = outputs.first().is_some_and(|&id| self.is_map(id));
        let name = call.operator.as_str();
        Ok(match name {
            "batch_norm" => self.batch_norm(index, call),
            "conv2d" if output_is_map && self.is_map(input) => {
                self.convolution(index, call)?.map(|kind| (kind, outputs))
            }
            "layer_norm" if self.layout(input).channels_last_extent().is_some() => {
                self.layer_norm(call).map(|kind| (kind, outputs))
            }
            "linear" if self.layout(input).channels_last_extent().is_some() => {
                let weight = call.value("weight");
                weight.map(|weight| {
                    let bias = call.value("bias");
                    (StepKind::Linear { input, weight, bias }, outputs)
                })
            }
            "max_pool2d" | "avg_pool2d" if self.is_map(input) => {
                self.pool(call)?.map(|kind| (kind, outputs))
            }
            "permute" if output_is_map && self.is_map(input) => {
                Some((StepKind::Relabel { input }, outputs))
            }
            "contiguous" | "clone" | "alias" | "detach"
                if self.is_map(input) && name != "detach" =>
            {
                Some((StepKind::Relabel { input }, outputs))
            }
            "add" if output_is_map => self.sum_of_maps(call).map(|kind| (kind, outputs)),
            "mul" => {
                let right = call.value("other");
                match right {
                    Some(right) if self.is_draw(input) || self.is_draw(right) => {
                        let call = self.generic(call)?;
                        Some((StepKind::Mul { left: input, right, call }, outputs))
                    }
                    _ => None,
                }
            }
            _ => match activation(call) {
                Some(activation) if output_is_map => {
                    let in_place = self.may_write(input);
                    Some((StepKind::Activation { input, activation, in_place }, outputs))
                }
                _ => None,
            },
        })
    }

    fn is_draw(&self, id: ValueId) -> bool {
        self.draws.contains_key(&id)
    }

    fn layer_norm(&self, call: &Call) -> Option<StepKind> {
        let normalized = call.ints("normalized_shape")?;
        let (weight, bias) = (call.value("weight")?, call.value("bias")?);
        let eps = call.float("eps").unwrap_or(1e-5);
        (normalized.len() == 1).then(|| call.first()).flatten().map(|input| StepKind::LayerNorm {
            input,
            weight,
            bias,
            eps,
        })
    }

    fn sum_of_maps(&self, call: &Call) -> Option<StepKind> {
        let (left, right) = (call.value("self")?, call.value("other")?);
        let scaled = call.argument("alpha").is_some();
        let alike = self.layout(left).axes == self.layout(right).axes
            && self.layout(left).size == self.layout(right).size;
        (alike && !scaled && self.is_map(left)).then_some(StepKind::Add { left, right })
    }

    /// Whether nobody needs the value but its reader, so that this may write into its memory.
    fn may_write(&self, id: ValueId) -> bool {
        let Some(producer) = self.ssa.values[id].producer else { return false };
        let operator = self.ssa.calls[producer].operator.as_str();
        let fresh = match operator {
            // Not of a convolution, whose result may be a view that a hook restores memory by.
            "batch_norm" => true,
            "add" => self.sum_of_maps(&self.ssa.calls[producer]).is_some(),
            _ => false,
        };
        fresh && self.uses[id] == 1
    }

    /// The call as it is.
    pub(super) fn generic(&self, call: &Call) -> Result<GenericCall> {
        let name = format!("{}::{}", call.library, call.operator);
        let operator = Operator::find(&name, &call.overload).or_else(|error| {
            // In-place overloads that functional kin lack have a plain one.
            Operator::find(&name, "").map_err(|_| error)
        })?;
        let names = operator.arguments();
        let mut arguments: Vec<Option<Arg>> = vec![None; names.len()];
        for (name, argument) in &call.arguments {
            let Some(at) = names.iter().position(|own| own == name) else {
                let rule = format!("this libtorch's {operator:?} has no argument of that name");
                return Err(Error::invalid("argument", name, rule));
            };
            let placement = matches!(argument, Arg::Literal(Value::Placement | Value::Other(_)));
            arguments[at] = if placement { None } else { Some(argument.clone()) };
        }
        let layouts: Vec<Layout> = call.outputs.iter().map(|&id| self.layout(id).clone()).collect();
        let named = |wanted: &[&str]| names.iter().position(|own| wanted.contains(&own.as_str()));
        let of_images = layouts
            .first()
            .is_some_and(|layout| layout.axes.iter().any(|axis| *axis != Axis::Channels));
        let shape = match call.operator.as_str() {
            _ if !of_images => None,
            "view" | "reshape" | "_unsafe_view" | "expand" | "new_empty" | "new_ones"
            | "new_zeros" | "new_full" | "empty" | "zeros" | "ones" | "full" | "broadcast_to" => {
                named(&["size", "shape"]).map(|at| (at, ShapeOf::Whole))
            }
            "upsample_nearest2d"
            | "_upsample_nearest_exact2d"
            | "upsample_bilinear2d"
            | "upsample_bicubic2d"
            | "_upsample_bilinear2d_aa"
            | "_upsample_bicubic2d_aa" => {
                let given = named(&["output_size"]);
                given
                    .filter(|&at| matches!(arguments[at], Some(Arg::Literal(Value::Ints(_)))))
                    .map(|at| (at, ShapeOf::Sides))
            }
            "unflatten" => {
                let dim = call.int("dim").unwrap_or(0).max(0) as usize;
                named(&["sizes"]).map(|at| (at, ShapeOf::From(dim)))
            }
            _ => None,
        };
        let arithmetic = match call.operator.as_str() {
            name if PRODUCTS.contains(&name) => Arithmetic::Product,
            name if name.ends_with("_norm") => Arithmetic::Norm,
            _ => Arithmetic::Other,
        };
        Ok(GenericCall { operator, arguments, shape, arithmetic, layouts })
    }
}

/// The pointwise function that a call is, if layers have it.
fn activation(call: &Call) -> Option<Activation> {
    let bounds = |lower: f64, upper: f64| {
        let (low, high) = (call.float("min_val"), call.float("max_val"));
        (low.unwrap_or(-1.0), high.unwrap_or(1.0)) == (lower, upper)
    };
    Some(match call.operator.as_str() {
        "relu" => Activation::Relu,
        "relu6" => Activation::Relu6,
        "hardtanh" if bounds(0.0, 6.0) => Activation::Relu6,
        "gelu" if call.text("approximate").is_none_or(|kind| kind == "none") => Activation::Gelu,
        "silu" => Activation::Silu,
        "sigmoid" => Activation::Sigmoid,
        "hardswish" => Activation::HardSwish,
        _ => return None,
    })
}
