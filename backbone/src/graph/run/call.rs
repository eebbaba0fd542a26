//! Operators that are called as they are.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::super::axes::Layout;
use super::super::lower::{Arithmetic, GenericCall, ShapeOf};
use super::super::operator::Argument;
use super::super::ssa::{Arg, ValueId};
use super::{Form, Run, Slot};
use crate::pt2::Value;
use crate::{Error, FeatureMap, Result};

impl Run<'_> {
    /// The operator's results on the values as they are.
    pub(super) fn generic(&mut self, call: &GenericCall) -> Result<Vec<Slot>> {
        let tensors = self.call(call, &[])?;
        tensors
            .into_iter()
            .zip(&call.layouts)
            .map(|(tensor, layout)| self.store(tensor, layout))
            .collect()
    }

    /// The operator's result on the grid.
    pub(super) fn on_grid(&mut self, input: ValueId, call: &GenericCall) -> Result<Slot> {
        let grid = self.padded_grid(input)?;
        let tensors = self.call(call, &[(input, grid)])?;
        let result = tensors.into_iter().next();
        let result = result.ok_or_else(|| Error::Torch("an operator made nothing".into()))?;
        self.grid_slot(result, &call.layouts[0])
    }

    /// A padded grid, which only a pool reads.
    pub(super) fn pad(&mut self, input: ValueId, call: &GenericCall) -> Result<Slot> {
        let grid = self.peek_map(input)?.to_grid();
        let padded = self.call(call, &[(input, grid)])?.into_iter().next();
        let padded = padded.ok_or_else(|| Error::Torch("nothing was padded".into()))?;
        Ok(match self.form {
            Form::Grid => Slot::map(FeatureMap::Grid(padded).into(), false),
            _ => Slot::Tensor(padded),
        })
    }

    /// A map on the grid, padded already if its step was.
    fn padded_grid(&mut self, input: ValueId) -> Result<Tensor> {
        let layout = &self.network.layouts[input];
        if layout.map_extent().is_some_and(|e| self.network.extents.get(e).stride.is_some())
            || matches!(self.form, Form::Grid)
        {
            return Ok(self.peek_map(input)?.to_grid());
        }
        self.tensor(input)
    }

    /// A grid `[N, C, H, W]` as the map that this pass computes on.
    pub(super) fn grid_slot(&self, grid: Tensor, layout: &Layout) -> Result<Slot> {
        let is_map = layout.map_extent().is_some();
        Ok(match &self.form {
            _ if !is_map => Slot::Tensor(grid),
            Form::Grid => Slot::map(FeatureMap::Grid(grid).into(), false),
            Form::Patches(mask) => Slot::map(FeatureMap::patches(&grid, mask)?.into(), false),
            Form::Masked(mask) => {
                Slot::map(FeatureMap::masked(&grid, &Rc::clone(mask))?.into(), false)
            }
        })
    }

    /// The operator's results, with some of its values replaced.
    pub(super) fn call(
        &mut self,
        call: &GenericCall,
        replaced: &[(ValueId, Tensor)],
    ) -> Result<Vec<Tensor>> {
        let on_grid = !replaced.is_empty();
        let shape = call.shape.map(|(at, of)| (at, self.shape(&call.layouts[0], of, on_grid)));
        let mut arguments = Vec::with_capacity(call.arguments.len());
        for (at, argument) in call.arguments.iter().enumerate() {
            arguments.push(match (argument, &shape) {
                (_, Some((shaped, sizes))) if *shaped == at => Argument::Ints(sizes),
                (None, _) => Argument::Default,
                (Some(Arg::Value(id)), _) => {
                    let found = replaced.iter().find(|(own, _)| own == id);
                    let tensor = match found {
                        Some((_, tensor)) => tensor.shallow_clone(),
                        None => self.tensor(*id)?,
                    };
                    Argument::Tensor(self.fitting(tensor, *id, call))
                }
                (Some(Arg::Values(ids)), _) => {
                    let mut tensors = Vec::with_capacity(ids.len());
                    for id in ids {
                        tensors.push(match id {
                            Some(id) => self.tensor(*id)?,
                            None => Tensor::new(),
                        });
                    }
                    Argument::Tensors(tensors)
                }
                (Some(Arg::Literal(value)), _) => literal(value),
            });
        }
        call.operator.call(&arguments)
    }

    /// A tensor in the type that the operator takes: products compute in the pass's, and
    /// parameters beside maps do not widen them.
    fn fitting(&self, tensor: Tensor, id: ValueId, call: &GenericCall) -> Tensor {
        if !tensor.is_floating_point() {
            return tensor;
        }
        let is_parameter = self.parameters.tensors[id].is_some();
        let beside_map = call.layouts.iter().any(Layout::is_spatial);
        match (call.arithmetic, self.mode.compute) {
            (Arithmetic::Product, Some(_)) => self.mode.cast(&tensor),
            (Arithmetic::Other, Some(compute)) if is_parameter && beside_map => {
                tensor.to_kind(compute)
            }
            // Constants are not converted with the variables.
            (Arithmetic::Product | Arithmetic::Other, None)
                if is_parameter && !tensor.requires_grad() =>
            {
                tensor.to_kind(self.kind)
            }
            _ => tensor,
        }
    }

    /// The sizes of a result in this pass.
    fn shape(&self, layout: &Layout, of: ShapeOf, on_grid: bool) -> Vec<i64> {
        let axes = layout.axes.iter().zip(&layout.size);
        let sizes: Vec<i64> = axes.map(|(&axis, &size)| self.axis_size(axis, size)).collect();
        match of {
            ShapeOf::Whole => sizes,
            ShapeOf::From(axis) => sizes[axis.min(sizes.len())..].to_vec(),
            ShapeOf::Sides if on_grid => self.grid_sides(layout),
            ShapeOf::Sides => sizes[sizes.len() - 2..].to_vec(),
        }
    }

    /// Height and width on the grid.
    fn grid_sides(&self, layout: &Layout) -> Vec<i64> {
        let extent = layout.map_extent().map(|extent| self.network.extents.get(extent));
        match extent.and_then(|extent| extent.stride) {
            Some((down, across)) => vec![self.size.0 / down, self.size.1 / across],
            None => {
                let axes = layout.axes.iter().zip(&layout.size).skip(2);
                axes.map(|(&axis, &size)| self.axis_size(axis, size)).collect()
            }
        }
    }
}

fn literal(value: &Value) -> Argument<'_> {
    match value {
        Value::None => Argument::None,
        Value::Int(value) => Argument::Int(*value),
        Value::Float(value) => Argument::Float(*value),
        Value::Bool(value) => Argument::Bool(*value),
        Value::Text(value) => Argument::Text(value),
        Value::Ints(values) => Argument::Ints(values),
        Value::Floats(values) => Argument::Floats(values),
        Value::Bools(values) => Argument::Bools(values),
        Value::Kind(Some(kind)) => Argument::Int(scalar_type(*kind)),
        Value::Kind(None) | Value::Placement | Value::Other(_) => Argument::Default,
        Value::Tensor(_) | Value::Tensors(_) => Argument::Default,
    }
}

/// libtorch's number of a type (`c10/core/ScalarType.h`).
fn scalar_type(kind: Kind) -> i64 {
    match kind {
        Kind::Uint8 => 0,
        Kind::Int8 => 1,
        Kind::Int16 => 2,
        Kind::Int => 3,
        Kind::Int64 => 4,
        Kind::Half => 5,
        Kind::Float => 6,
        Kind::Double => 7,
        Kind::Bool => 11,
        Kind::BFloat16 => 15,
        _ => 6,
    }
}
