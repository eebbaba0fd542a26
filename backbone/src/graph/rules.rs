//! What every operator does to the axes of its values, and whether that has a meaning on visible
//! patches.
//!
//! The visible patches of an image, one above the other, are an image `[C, k·p, q]` themselves.
//! An operator that looks at no neighbours runs on it as it is; means over all positions are means
//! over the visible ones. Only operators that look at neighbours need the grid.

mod shapes;
mod spatial;

use super::axes::{Axis, Extent, Extents, Labelled, Layout, broadcast};
use super::ssa::{Arg, Call, Ssa, ValueId};

/// How an operator runs on visible patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// On the patches as they are.
    Positions,
    /// It looks at neighbours.
    Neighbours,
    /// It draws random numbers: see [`super::draws`].
    Draws,
}

/// Zeros or copies that an operator before puts around a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Padding {
    /// The map.
    pub source: ValueId,
    /// Positions before and behind, rows first.
    pub rows: (i64, i64),
    pub cols: (i64, i64),
    /// What they hold, if that is a constant; else they repeat or mirror the map.
    pub constant: Option<f64>,
}

/// What the analysis finds of a graph.
#[derive(Debug)]
pub(super) struct Analysis {
    /// By value.
    pub layouts: Vec<Layout>,
    /// By value: what padded it.
    pub paddings: Vec<Option<Padding>>,
    /// By call.
    pub reaches: Vec<Reach>,
    /// By call: why it has no meaning on visible patches.
    pub refusals: Vec<Option<String>>,
    pub extents: Extents,
    /// The image's grid.
    pub image: usize,
}

/// What a rule says of a call.
pub(super) struct Verdict {
    layouts: Vec<Layout>,
    reach: Reach,
    refusal: Option<String>,
    padding: Option<Padding>,
}

impl Verdict {
    fn new(layout: Layout) -> Self {
        Self::many(vec![layout])
    }

    fn many(layouts: Vec<Layout>) -> Self {
        Self { layouts, reach: Reach::Positions, refusal: None, padding: None }
    }

    fn neighbours(self) -> Self {
        Self { reach: Reach::Neighbours, ..self }
    }

    fn draws(self) -> Self {
        Self { reach: Reach::Draws, ..self }
    }

    fn refused(self, reason: impl Into<String>) -> Self {
        Self { refusal: Some(reason.into()), ..self }
    }

    fn refused_if(self, reason: Option<String>) -> Self {
        Self { refusal: self.refusal.or(reason), ..self }
    }
}

impl From<Labelled> for Verdict {
    fn from((layout, refusal): Labelled) -> Self {
        Self::new(layout).refused_if(refusal)
    }
}

impl Analysis {
    /// Labels the axes of all values of a graph whose image is `image`.
    ///
    /// # Errors
    /// A sentence: the image is no batch of images.
    pub fn new(ssa: &Ssa, image: ValueId) -> Result<Self, String> {
        let size = &ssa.values[image].size;
        let [_, _, height, width] = size[..] else {
            return Err(format!("its input is {size:?}, but a backbone takes images [N, C, H, W]"));
        };
        let mut extents = Extents::default();
        let grid = extents.id(Extent { size: (height, width), stride: Some((1, 1)) });
        let mut layouts: Vec<Layout> =
            ssa.values.iter().map(|value| Layout::fixed(&value.size)).collect();
        layouts[image] = Layout::map(size, grid);
        let mut analysis = Self {
            paddings: vec![None; layouts.len()],
            layouts,
            reaches: Vec::with_capacity(ssa.calls.len()),
            refusals: Vec::with_capacity(ssa.calls.len()),
            extents,
            image: grid,
        };
        let images = size[0];
        for call in &ssa.calls {
            analysis.call(ssa, call, images);
        }
        Ok(analysis)
    }

    fn call(&mut self, ssa: &Ssa, call: &Call, images: i64) {
        let sizes: Vec<&[i64]> = call.outputs.iter().map(|&id| &ssa.values[id].size[..]).collect();
        let mut verdict = Rules { analysis: self, call, sizes: &sizes, images }.verdict();
        let reads_padded = Ssa::reads(call)
            .any(|id| self.paddings[id].as_ref().is_some_and(|_| self.layouts[id].is_spatial()));
        let takes_padded = matches!(call.operator.as_str(), "conv2d" | "max_pool2d" | "avg_pool2d");
        if reads_padded && !takes_padded {
            verdict = verdict.refused("it reads a padded map, as only convolutions and pools can");
        }
        if let Some(stale) = &call.stale {
            let reason =
                format!("it reads {stale}, which was changed in place through another view of it");
            verdict = verdict.refused(reason);
        }
        for (&id, layout) in call.outputs.iter().zip(verdict.layouts) {
            if layout.axes.len() == self.layouts[id].axes.len() {
                self.layouts[id] = layout;
            }
        }
        if let Some(&id) = call.outputs.first() {
            self.paddings[id] = verdict.padding;
        }
        self.reaches.push(verdict.reach);
        self.refusals.push(verdict.refusal);
    }
}

/// One call, and what is known of the values it reads.
struct Rules<'a> {
    analysis: &'a mut Analysis,
    call: &'a Call,
    /// Shapes of its results at export.
    sizes: &'a [&'a [i64]],
    /// Images of the batch at export.
    images: i64,
}

/// Functions of every element of one tensor.
const POINTWISE: &[&str] = &[
    "relu",
    "silu",
    "gelu",
    "sigmoid",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "leaky_relu",
    "elu",
    "tanh",
    "mish",
    "clone",
    "contiguous",
    "alias",
    "detach",
    "to",
    "pow",
    "sqrt",
    "rsqrt",
    "square",
    "abs",
    "exp",
    "log",
    "log1p",
    "expm1",
    "neg",
    "clamp",
    "clamp_min",
    "clamp_max",
    "softplus",
    "relu6",
    "floor",
    "ceil",
    "round",
    "reciprocal",
    "hardshrink",
    "softshrink",
    "threshold",
    "selu",
    "celu",
    "log_sigmoid",
    "erf",
    "_to_copy",
    "sign",
    "sin",
    "cos",
    "lift_fresh_copy",
    "lift_fresh",
    "ones_like",
    "zeros_like",
    "full_like",
    "empty_like",
    "logical_not",
    "bitwise_not",
    "isnan",
    "isinf",
    "nan_to_num",
    "positive",
];
/// Functions of the elements of several tensors that are broadcast to one shape.
const BROADCAST: &[&str] = &[
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "addcmul",
    "addcdiv",
    "rsub",
    "where",
    "lerp",
    "ge",
    "gt",
    "lt",
    "le",
    "eq",
    "ne",
    "pow",
    "fill",
    "copy",
    "true_divide",
    "logical_and",
    "logical_or",
    "bitwise_and",
    "bitwise_or",
    "masked_fill",
    "atan2",
    "remainder",
    "fmod",
    "type_as",
    "expand_as",
];

impl Rules<'_> {
    fn layout(&self, id: ValueId) -> &Layout {
        &self.analysis.layouts[id]
    }

    /// The layouts of all values read.
    fn inputs(&self) -> Vec<&Layout> {
        Ssa::reads(self.call).map(|id| self.layout(id)).collect()
    }

    fn size(&self) -> &[i64] {
        self.sizes.first().copied().unwrap_or(&[])
    }

    /// Results of fixed size.
    fn fixed(&self) -> Verdict {
        Verdict::many(self.sizes.iter().map(|size| Layout::fixed(size)).collect())
    }

    fn verdict(mut self) -> Verdict {
        let name = self.call.operator.as_str();
        if self.call.library != "aten" {
            let named = format!("{}::{name} is no operator that is known here", self.call.library);
            return self.guess().refused(named);
        }
        if matches!(name, "bernoulli" | "dropout" | "feature_dropout" | "rand_like" | "randn_like")
        {
            return self.pointwise().draws();
        }
        if matches!(name, "rand" | "randn" | "randint" | "normal" | "uniform" | "randperm") {
            return self.guess().refused("it draws random numbers that are no dropout");
        }
        let reads_images = self.inputs().iter().any(|layout| layout.is_of_images());
        if !reads_images {
            return self.without_images();
        }
        let known_pointwise = POINTWISE.contains(&name) && self.inputs().len() == 1;
        if known_pointwise {
            return self.pointwise();
        }
        if name == "prelu" {
            // Its weight counts the channels of [N, C, …].
            return self.pointwise();
        }
        if BROADCAST.contains(&name) {
            return broadcast(&self.inputs(), self.size()).into();
        }
        if let Some(verdict) = self.spatial(name).or_else(|| self.shape(name)) {
            return verdict;
        }
        self.guess().refused(format!("what {name} means on visible patches is not known"))
    }

    /// A value that depends on parameters alone, or on the batch's size.
    fn without_images(self) -> Verdict {
        let name = self.call.operator.as_str();
        let makes = matches!(name, "empty" | "zeros" | "ones" | "full" | "scalar_tensor");
        let size = self.size();
        if makes && size.len() > 1 && size[0] == self.images && size[1..].iter().all(|&s| s == 1) {
            let mut layout = Layout::fixed(size);
            layout.axes[0] = Axis::Images(1);
            return Verdict::new(layout);
        }
        self.fixed()
    }

    /// Every result is like the first input.
    fn pointwise(&self) -> Verdict {
        let Some(first) = self.call.first() else { return self.fixed() };
        let layout = self.layout(first);
        if layout.size == self.size() {
            return Verdict::many(vec![layout.clone(); self.sizes.len()]);
        }
        broadcast(&self.inputs(), self.size()).into()
    }

    /// The layouts of a call that nothing is known of, by their sizes, so that the graph runs on
    /// grids of other sizes where that is possible.
    fn guess(&self) -> Verdict {
        let like = |size: &[i64]| {
            let same = self.inputs().into_iter().find(|layout| layout.size == size);
            if let Some(layout) = same {
                return layout.clone();
            }
            let mut layout = Layout::fixed(size);
            if size.first() == Some(&self.images) {
                layout.axes[0] = Axis::Images(1);
            }
            if let [_, _, height, width] = size[..]
                && let Some(extent) = self.analysis.extents.with_size((height, width))
                && self.inputs().iter().any(|input| input.is_spatial())
            {
                return Layout::map(size, extent);
            }
            layout
        };
        Verdict::many(self.sizes.iter().map(|size| like(size)).collect())
    }
}

/// The values of a list argument.
fn list(call: &Call, name: &str) -> Vec<ValueId> {
    match call.argument(name) {
        Some(Arg::Values(ids)) => ids.iter().flatten().copied().collect(),
        _ => Vec::new(),
    }
}
