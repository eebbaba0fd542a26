//! One pass through a network's steps.

mod call;
mod draws;
mod layers;
mod slot;

use std::rc::Rc;

use tch::{Kind, Tensor};

use self::slot::Slot;
use super::axes::{Axis, Layout};
use super::lower::{Lowered, Step, StepKind};
use super::ssa::ValueId;
use crate::layers::{BatchNorm2d, Recomputable};
use crate::mask::PatchMask;
use crate::mode::Mode;
use crate::{Error, FeatureMap, Result, Size};

/// The tensors that a network's steps read besides the image.
#[derive(Debug)]
pub(super) struct Parameters {
    /// By value: parameters, buffers, constants.
    pub tensors: Vec<Option<Tensor>>,
    pub norms: Vec<BatchNorm2d>,
    /// Drop-path's rates, in order.
    pub drop_path: Vec<f64>,
}

/// The kind of feature map that a pass computes on.
#[derive(Debug, Clone)]
pub(super) enum Form {
    Grid,
    Patches(Rc<PatchMask>),
    Masked(Rc<PatchMask>),
}

/// A pass under way.
pub(super) struct Run<'a> {
    network: &'a Lowered,
    parameters: &'a Parameters,
    /// The mode of the step at hand.
    mode: &'a Mode,
    /// Those of the pass and of its frozen stages.
    modes: [&'a Mode; 2],
    form: Form,
    /// Images of the batch.
    images: i64,
    /// The image's size and type.
    size: Size,
    kind: Kind,
    device: tch::Device,
    values: Vec<Option<Slot>>,
    /// By extent: the size of its grid in this pass.
    grids: Vec<Option<Size>>,
}

impl<'a> Run<'a> {
    pub fn new(
        network: &'a Lowered,
        parameters: &'a Parameters,
        x: &FeatureMap,
        modes: [&'a Mode; 2],
    ) -> Result<Self> {
        let form = match x {
            FeatureMap::Grid(_) => Form::Grid,
            FeatureMap::Patches { mask, .. } => Form::Patches(Rc::clone(mask)),
            FeatureMap::Masked { mask, .. } => Form::Masked(Rc::clone(mask)),
        };
        if let Some(mask) = x.mask() {
            check_equal_counts(mask)?;
        }
        let mut values: Vec<Option<Slot>> = Vec::new();
        values.resize_with(network.values, || None);
        values[network.image] = Some(Slot::map(x.clone().into(), false));
        let mut grids = vec![None; network.extents.len()];
        let image = network.layouts[network.image].map_extent().unwrap_or(0);
        grids[image] = Some(x.grid_size());
        Ok(Self {
            network,
            parameters,
            mode: modes[0],
            modes,
            form,
            images: x.batch(),
            size: x.grid_size(),
            kind: x.kind(),
            device: x.device(),
            values,
            grids,
        })
    }

    /// The maps of the stages up to [`Mode::stages`], finest first.
    ///
    /// # Errors
    /// What libtorch refuses, with the step's name.
    pub fn stages(mut self, describe: impl Fn(usize) -> String) -> Result<Vec<FeatureMap>> {
        let count = self.network.outputs.len().min(self.mode.stages);
        self.run(count, describe)?;
        let outputs = self.network.outputs[..count].to_vec();
        outputs.into_iter().map(|id| self.peek_map(id)).collect()
    }

    /// What the graph returns, if the network computes that.
    ///
    /// # Errors
    /// As [`Run::stages`].
    pub fn heads(mut self, describe: impl Fn(usize) -> String) -> Result<Vec<Tensor>> {
        self.run(usize::MAX, describe)?;
        let heads = self.network.heads.clone();
        heads.into_iter().map(|id| self.tensor(id)).collect()
    }

    /// The steps of the stages up to this one.
    fn run(&mut self, count: usize, describe: impl Fn(usize) -> String) -> Result<()> {
        let [mode, frozen] = self.modes;
        for step in self.network.steps.iter().filter(|step| step.stage <= count) {
            self.mode = mode.for_stage(step.stage, frozen);
            self.step(step)
                .map_err(|error| Error::Torch(format!("{}: {error}", describe(step.node))))?;
            for &id in &step.last_uses {
                self.values[id] = None;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let slots: Vec<Slot> = match &step.kind {
            StepKind::Convolution(convolution) => vec![self.convolution(convolution, step)?],
            StepKind::BatchNorm { input, norm, activation } => {
                vec![self.batch_norm(*input, *norm, *activation, step)?]
            }
            StepKind::LayerNorm { input, weight, bias, eps } => {
                vec![self.layer_norm(*input, [*weight, *bias], *eps)?]
            }
            StepKind::Linear { input, weight, bias } => {
                vec![self.linear(*input, *weight, *bias, step)?]
            }
            StepKind::Activation { input, activation, in_place } => {
                vec![self.activation(*input, *activation, *in_place, step)?]
            }
            StepKind::Add { left, right } => vec![self.sum(*left, *right)?],
            StepKind::Mul { left, right, call } => self.product(*left, *right, call, step)?,
            StepKind::MaxPool { input, sliding, call } => {
                vec![self.max_pool(*input, *sliding, call, step)?]
            }
            StepKind::AvgPool { input, sliding, count_include_pad, call } => {
                vec![self.avg_pool(*input, (*sliding, *count_include_pad), call)?]
            }
            StepKind::GlobalPool { input, is_mean } => vec![self.global_pool(*input, *is_mean)?],
            StepKind::Relabel { input } => vec![self.relabel(*input, step)?],
            StepKind::DropPath { site, scaled, .. } => vec![self.drop_path(*site, *scaled)],
            StepKind::Dropout { input, site, rate, of_channels } => {
                vec![self.dropout(*input, *site, *rate, *of_channels)?]
            }
            StepKind::Generic(call) => self.generic(call)?,
            StepKind::Pad { input, call } => vec![self.pad(*input, call)?],
            StepKind::OnGrid { input, call } => vec![self.on_grid(*input, call)?],
        };
        for (&id, slot) in step.outputs.iter().zip(slots) {
            self.record_size(&self.network.layouts[id], &slot);
            self.values[id] = Some(slot);
        }
        Ok(())
    }

    /// Notes the size of a grid that was made.
    fn record_size(&mut self, layout: &Layout, slot: &Slot) {
        if !matches!(self.form, Form::Grid) {
            return;
        }
        match slot {
            Slot::Map { map, .. } => {
                let extent = layout.map_extent().or(layout.channels_last_extent());
                if let Some(extent) = extent {
                    self.grids[extent] = Some(map.map().grid_size());
                }
            }
            Slot::Tensor(tensor) => {
                let size = tensor.size();
                let side = |wanted: fn(&Axis) -> bool| layout.axes.iter().position(wanted);
                let height = side(|axis| matches!(axis, Axis::Height(_)));
                let width = side(|axis| matches!(axis, Axis::Width(_)));
                if let (Some(y), Some(x)) = (height, width)
                    && let Axis::Height(extent) = layout.axes[y]
                {
                    self.grids[extent].get_or_insert((size[y], size[x]));
                }
            }
            Slot::Ones => {}
        }
    }

    /// Positions along both sides of an extent, of what operators see: the grid, or an image's
    /// visible patches one above the other.
    fn sides(&self, extent: usize) -> Size {
        let grid = self.network.extents.get(extent);
        match (&self.form, grid.stride) {
            (Form::Patches(mask) | Form::Masked(mask), Some((down, across))) => {
                let (rows, cols) = mask.patches();
                let (height, width) = (self.size.0 / rows / down, self.size.1 / cols / across);
                (mask.visible_count() / mask.batch() * height, width)
            }
            _ => self.grids[extent].unwrap_or_else(|| {
                let scale =
                    |image: i64, old: i64, whole: i64| (image * old + whole - 1) / whole.max(1);
                let image = self.network.extents.get(0).size;
                (scale(self.size.0, grid.size.0, image.0), scale(self.size.1, grid.size.1, image.1))
            }),
        }
    }

    /// The size of an axis in this pass.
    fn axis_size(&self, axis: Axis, exported: i64) -> i64 {
        match axis {
            Axis::Channels => exported,
            Axis::Images(multiple) => self.images * multiple,
            Axis::Height(extent) => self.sides(extent).0,
            Axis::Width(extent) => self.sides(extent).1,
            Axis::Positions(extent) => {
                let (height, width) = self.sides(extent);
                height * width
            }
        }
    }

    /// A parameter, buffer or constant, where `id` is one.
    fn parameter(&self, id: ValueId) -> Option<Tensor> {
        let tensor = self.parameters.tensors[id].as_ref()?;
        // Constants are no variables, which a host would move and convert.
        let device = (tensor.device() != self.device).then_some(self.device);
        let tensor = device.map_or_else(|| tensor.shallow_clone(), |to| tensor.to_device(to));
        Some(tensor)
    }

    /// The value is nobody else's after this step.
    fn is_last_use(step: &Step, id: ValueId) -> bool {
        step.last_uses.contains(&id)
    }

    /// The map, for one layer if this is its last use.
    fn take_map(&mut self, id: ValueId, step: &Step) -> Result<(Recomputable, bool)> {
        if Self::is_last_use(step, id)
            && matches!(self.values[id], Some(Slot::Map { .. }))
            && let Some(Slot::Map { map, channels_last }) = self.values[id].take()
        {
            return Ok((map, channels_last));
        }
        let channels_last = match &self.values[id] {
            Some(Slot::Map { channels_last, .. }) => *channels_last,
            _ => false,
        };
        Ok((self.peek_map(id)?.into(), channels_last))
    }

    /// The map in whatever order its value has, kept from now on.
    fn peek_map(&mut self, id: ValueId) -> Result<FeatureMap> {
        if let Some(Slot::Map { map, channels_last }) = self.values[id].take() {
            let kept = map.into_map();
            let again = kept.clone();
            self.values[id] = Some(Slot::map(kept.into(), channels_last));
            return Ok(again);
        }
        let tensor = self.tensor(id)?;
        let layout = &self.network.layouts[id];
        let tensor = if layout.channels_last_extent().is_some() && layout.map_extent().is_none() {
            tensor.permute([0, 3, 1, 2])
        } else {
            tensor
        };
        self.map_of_tall(&tensor)
    }

    /// The value as operators take it: a map's visible patches of an image one above the other.
    fn tensor(&mut self, id: ValueId) -> Result<Tensor> {
        if let Some(parameter) = self.parameter(id) {
            return Ok(parameter);
        }
        match self.values[id].take() {
            Some(Slot::Map { map, channels_last }) => {
                let kept = map.into_map();
                let tall = self.tall_of_map(&kept);
                self.values[id] = Some(Slot::map(kept.into(), channels_last));
                Ok(if channels_last { tall.permute([0, 2, 3, 1]) } else { tall })
            }
            Some(Slot::Tensor(tensor)) => {
                let again = tensor.shallow_clone();
                self.values[id] = Some(Slot::Tensor(tensor));
                Ok(again)
            }
            Some(Slot::Ones) => {
                self.values[id] = Some(Slot::Ones);
                Ok(Tensor::ones([self.images, 1, 1, 1], (self.kind, self.device)))
            }
            None => Err(Error::Torch(format!("value {id} was not computed"))),
        }
    }

    /// A map `[N, C, H, W]` of the grid, or of the visible patches of each image one above the
    /// other: `[N, C, k·p, q]`.
    fn tall_of_map(&self, map: &FeatureMap) -> Tensor {
        let packed = match map {
            FeatureMap::Grid(grid) => return grid.shallow_clone(),
            FeatureMap::Patches { packed, .. } => packed.shallow_clone(),
            FeatureMap::Masked { grid, mask } => mask.pack(grid),
        };
        let (_, c, _, q) = packed.size4().expect("packed patches have four dimensions");
        let rows = packed.permute([0, 2, 3, 1]).reshape([self.images, -1, q, c]);
        rows.permute([0, 3, 1, 2])
    }

    /// The map that [`Run::tall_of_map`] gives `tall` of.
    ///
    /// # Errors
    /// Another number of rows than the visible patches have.
    fn map_of_tall(&self, tall: &Tensor) -> Result<FeatureMap> {
        let mask = match &self.form {
            Form::Grid => return Ok(FeatureMap::Grid(tall.shallow_clone())),
            Form::Patches(mask) | Form::Masked(mask) => mask,
        };
        let (n, c, height, q) = tall.size4()?;
        let count = mask.visible_count();
        if (n * height) % count != 0 {
            let rule = format!("its rows must be those of {mask:?}");
            return Err(Error::invalid("a map", format!("{:?}", tall.size()), rule));
        }
        let rows = tall.permute([0, 2, 3, 1]).reshape([count, n * height / count, q, c]);
        let packed = rows.permute([0, 3, 1, 2]);
        Ok(match &self.form {
            Form::Masked(mask) => {
                FeatureMap::Masked { grid: mask.unpack(&packed), mask: Rc::clone(mask) }
            }
            _ => FeatureMap::Patches { packed, mask: Rc::clone(mask) },
        })
    }

    /// What an operator made, as its layout says: a map where it is one.
    fn store(&self, tensor: Tensor, layout: &Layout) -> Result<Slot> {
        if layout.map_extent().is_some() && !matches!(self.form, Form::Grid) {
            return Ok(Slot::map(self.map_of_tall(&tensor)?.into(), false));
        }
        if layout.map_extent().is_some() {
            return Ok(Slot::map(FeatureMap::Grid(tensor).into(), false));
        }
        if layout.channels_last_extent().is_some() {
            let map = self.map_of_tall(&tensor.permute([0, 3, 1, 2]))?;
            return Ok(Slot::map(map.into(), true));
        }
        Ok(Slot::Tensor(tensor))
    }
}

/// The patches of an image lie one above the other only where all images have as many.
fn check_equal_counts(mask: &PatchMask) -> Result<()> {
    let equal =
        mask.visible_count() % mask.batch() == 0 && (mask.has_equal_counts() || mask.batch() == 1);
    if equal {
        return Ok(());
    }
    let rule = "a network from a .pt2 file takes the same number of visible patches in every image";
    Err(Error::invalid("mask", format!("{mask:?}"), rule))
}
