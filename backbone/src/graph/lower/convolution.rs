//! Convolutions and pools: kernels that slide over the grid.

use super::super::geometry;
use super::super::ssa::{Call, ValueId};
use super::{ConvolutionStep, Lowering, StepKind};
use crate::Result;

impl Lowering<'_> {
    /// A convolution of a map, with the padding before it.
    pub(super) fn convolution(&self, index: usize, call: &Call) -> Result<Option<StepKind>> {
        let (Some(input), Some(weight)) = (call.value("input"), call.value("weight")) else {
            return Ok(None);
        };
        let [_, _, height, width] = self.layout(weight).size[..] else { return Ok(None) };
        let mut sliding = geometry::convolution(call, (height, width));
        let (mut source, mut pad) = (input, None);
        if let Some(padding) = &self.analysis.paddings[input] {
            source = padding.source;
            match padding.constant == Some(0.0) {
                true => sliding = geometry::with_padding(sliding, padding),
                false => pad = self.pad_call(input)?,
            }
        }
        Ok(Some(StepKind::Convolution(ConvolutionStep {
            input: source,
            weight,
            bias: call.value("bias"),
            groups: call.int("groups").unwrap_or(1),
            sliding,
            for_norm: self.feeds_plain_norm(index),
            pad,
        })))
    }

    /// The operator that made a padded value.
    fn pad_call(&self, padded: ValueId) -> Result<Option<super::GenericCall>> {
        let producer = self.ssa.values[padded].producer;
        producer.map(|call| self.generic(&self.ssa.calls[call])).transpose()
    }

    /// A pool of a map: of all its positions, or by a kernel that layers can do on patches; else
    /// it goes to the grid.
    pub(super) fn pool(&self, call: &Call) -> Result<Option<StepKind>> {
        let Some(input) = call.first() else { return Ok(None) };
        let is_mean = call.operator == "avg_pool2d";
        let output = call.outputs.first().map(|&id| self.layout(id));
        if self.analysis.paddings[input].is_some() {
            return Ok(None);
        }
        if output.is_some_and(|layout| !layout.is_spatial()) {
            return Ok(Some(StepKind::GlobalPool { input, is_mean }));
        }
        let sliding = geometry::pool(call);
        if !geometry::is_aligned(&sliding) {
            return Ok(None);
        }
        let call_as_it_is = self.generic(call)?;
        if !is_mean {
            return Ok(Some(StepKind::MaxPool { input, sliding, call: call_as_it_is }));
        }
        if call.argument("divisor_override").is_some() {
            return Ok(None);
        }
        let count_include_pad = call.flag("count_include_pad").unwrap_or(true);
        let beyond = sliding.padding_after.0 > sliding.padding.0
            || sliding.padding_after.1 > sliding.padding.1;
        // Where the last window reaches beyond the padding, only what lies within counts.
        let none = sliding.padding == (0, 0);
        if beyond && count_include_pad && !none {
            return Ok(None);
        }
        let count_include_pad = count_include_pad && !beyond;
        Ok(Some(StepKind::AvgPool { input, sliding, count_include_pad, call: call_as_it_is }))
    }
}
