//! Steps that layers do, with their own kernels and what they recompute.

use tch::{Kind, Tensor};

use super::super::lower::{ConvolutionStep, GenericCall, Step};
use super::super::ssa::ValueId;
use super::{Form, Run, Slot};
use crate::layers::{
    Activation, AvgPool2d, Conv2d, Layer, LayerNorm2d, Linear, MaxPool2d, Recomputable, Sliding,
    check_batch_statistics,
};
use crate::{Error, FeatureMap, Result};

impl Run<'_> {
    pub(super) fn convolution(&mut self, conv: &ConvolutionStep, step: &Step) -> Result<Slot> {
        let weight = self.weight(conv.weight)?;
        let bias = conv.bias.map(|bias| self.weight(bias)).transpose()?;
        if let Some(pad) = &conv.pad {
            // Padded with something else than zeros: on the grid.
            let grid = self.peek_map(conv.input)?.to_grid();
            let padded = self.call(pad, &[(conv.input, grid)])?;
            let padded = padded.into_iter().next();
            let padded = padded.ok_or_else(|| Error::Torch("nothing was padded".into()))?;
            let layer = Conv2d::by(weight, bias, conv.groups, conv.sliding);
            let grid = layer.forward(&FeatureMap::Grid(padded), self.mode).to_grid();
            return self.grid_slot(grid, &self.network.layouts[step.outputs[0]]);
        }
        let (input, _) = self.take_map(conv.input, step)?;
        let layer = Conv2d::by(weight, bias, conv.groups, conv.sliding);
        let output = if conv.for_norm {
            layer.forward_for_norm(input, self.mode)
        } else {
            layer.forward_owned(input, self.mode).into()
        };
        Ok(Slot::map(output, false))
    }

    /// A weight: a parameter, or what was computed of one.
    fn weight(&mut self, id: ValueId) -> Result<Tensor> {
        let weight = self.tensor(id)?;
        // A constant is not converted with the variables.
        let constant = !weight.requires_grad() && self.parameters.tensors[id].is_some();
        let other = self.mode.compute.is_none() && weight.kind() != self.kind;
        Ok(if constant && other { weight.to_kind(self.kind) } else { weight })
    }

    pub(super) fn batch_norm(
        &mut self,
        input: ValueId,
        norm: usize,
        activation: Activation,
        step: &Step,
    ) -> Result<Slot> {
        let frozen = self.network.norms[norm].frozen.then(|| self.mode.frozen());
        let mode = frozen.as_ref().unwrap_or(self.mode);
        let norm = &self.parameters.norms[norm];
        if matches!(self.values[input], Some(Slot::Map { .. })) {
            let (x, channels_last) = self.take_map(input, step)?;
            return Ok(Slot::map(norm.forward_act(activation, x, mode), channels_last));
        }
        // Vectors of images, [N, C] or [N, C, 1, 1].
        let tensor = self.tensor(input)?;
        let size = tensor.size();
        check_batch_statistics(&format!("{size:?}"), &size, mode)?;
        let map = match size.len() {
            2 => tensor.unsqueeze(-1).unsqueeze(-1),
            4 => tensor,
            _ => {
                let rule = "a batch norm takes a map or a vector for every image";
                return Err(Error::invalid("its input", format!("{size:?}"), rule));
            }
        };
        let output = norm.forward_act(activation, FeatureMap::Grid(map).into(), mode).into_map();
        Ok(Slot::Tensor(output.tensor().view(&size[..])))
    }

    pub(super) fn layer_norm(
        &mut self,
        input: ValueId,
        affine: [ValueId; 2],
        eps: f64,
    ) -> Result<Slot> {
        let map = self.peek_map(input)?;
        let [weight, bias] = [self.weight(affine[0])?, self.weight(affine[1])?];
        let layer = LayerNorm2d::by(weight, bias, eps);
        Ok(Slot::map(layer.forward_recomputable(&map), true))
    }

    pub(super) fn linear(
        &mut self,
        input: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
        step: &Step,
    ) -> Result<Slot> {
        let weight = self.weight(weight)?;
        let bias = bias.map(|bias| self.weight(bias)).transpose()?;
        let (input, _) = self.take_map(input, step)?;
        let output = Linear::by(weight, bias).forward_owned(input, self.mode);
        Ok(Slot::map(output.into(), true))
    }

    pub(super) fn activation(
        &mut self,
        input: ValueId,
        activation: Activation,
        in_place: bool,
        step: &Step,
    ) -> Result<Slot> {
        let is_last = Self::is_last_use(step, input);
        let (x, channels_last) = self.take_map(input, step)?;
        let clamps = matches!(activation, Activation::Relu | Activation::Relu6);
        let output: Recomputable = if in_place && is_last && clamps {
            activation.forward_in_place(x.into_map()).into()
        } else {
            activation.forward_owned(x)
        };
        Ok(Slot::map(output, channels_last))
    }

    pub(super) fn sum(&mut self, left: ValueId, right: ValueId) -> Result<Slot> {
        let channels_last = match &self.values[left] {
            Some(Slot::Map { channels_last, .. }) => *channels_last,
            _ => false,
        };
        let (left, right) = (self.peek_map(left)?, self.peek_map(right)?);
        Ok(Slot::map(left.add(&right).into(), channels_last))
    }

    /// A product one side of which may be what drop-path kept.
    pub(super) fn product(
        &mut self,
        left: ValueId,
        right: ValueId,
        call: &GenericCall,
        step: &Step,
    ) -> Result<Vec<Slot>> {
        for (ones, other) in [(left, right), (right, left)] {
            if matches!(self.values[ones], Some(Slot::Ones)) {
                return match &self.values[other] {
                    Some(Slot::Map { .. }) => {
                        let (map, channels_last) = self.take_map(other, step)?;
                        Ok(vec![Slot::map(map, channels_last)])
                    }
                    Some(Slot::Ones) => Ok(vec![Slot::Ones]),
                    _ => Ok(vec![Slot::Tensor(self.tensor(other)?)]),
                };
            }
        }
        self.generic(call)
    }

    pub(super) fn max_pool(
        &mut self,
        input: ValueId,
        sliding: Sliding,
        call: &GenericCall,
        step: &Step,
    ) -> Result<Slot> {
        if !self.is_packed() && !sliding.is_symmetric() {
            return self.on_grid(input, call);
        }
        let (x, _) = self.take_map(input, step)?;
        Ok(Slot::map(MaxPool2d::of(sliding).forward_owned(x).into(), false))
    }

    pub(super) fn avg_pool(
        &mut self,
        input: ValueId,
        (sliding, count_include_pad): (Sliding, bool),
        call: &GenericCall,
    ) -> Result<Slot> {
        if !self.is_packed() {
            return self.on_grid(input, call);
        }
        let map = self.peek_map(input)?;
        let layer = AvgPool2d::of(sliding, count_include_pad);
        Ok(Slot::map(layer.forward(&map, self.mode).into(), false))
    }

    /// Over all visible positions of an image: `[N, C, 1, 1]`.
    pub(super) fn global_pool(&mut self, input: ValueId, is_mean: bool) -> Result<Slot> {
        let tall = self.tensor(input)?;
        let sides = [2i64, 3];
        Ok(Slot::Tensor(if is_mean {
            tall.mean_dim(sides.as_slice(), true, None::<Kind>)
        } else {
            tall.amax(sides, true)
        }))
    }

    /// The same map, its channels where the graph has them now.
    pub(super) fn relabel(&mut self, input: ValueId, step: &Step) -> Result<Slot> {
        let layout = &self.network.layouts[step.outputs[0]];
        let channels_last = layout.map_extent().is_none();
        if !matches!(self.values[input], Some(Slot::Map { .. })) {
            let tensor = self.tensor(input)?;
            return Ok(Slot::Tensor(tensor));
        }
        let (map, _) = self.take_map(input, step)?;
        Ok(Slot::map(map, channels_last))
    }

    fn is_packed(&self) -> bool {
        matches!(self.form, Form::Patches(_))
    }
}
