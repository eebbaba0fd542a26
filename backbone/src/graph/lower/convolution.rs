//! Convolutions and pools: kernels that slide over the grid.

use super::super::ssa::{Call, ValueId};
use super::{ConvolutionStep, Lowering, StepKind, zeros};
use crate::layers::Sliding;
use crate::{Result, Size};

impl Lowering<'_> {
    /// A convolution of a map, with the padding before it.
    pub(super) fn convolution(&self, index: usize, call: &Call) -> Result<Option<StepKind>> {
        let (Some(input), Some(weight)) = (call.value("input"), call.value("weight")) else {
            return Ok(None);
        };
        let [_, _, height, width] = self.layout(weight).size[..] else { return Ok(None) };
        let dilation = call.pair("dilation", 1);
        let around = |kernel: i64, dilation: i64| {
            let all = dilation * (kernel - 1);
            (all / 2, all - all / 2)
        };
        let (mut rows, mut cols) = match call.text("padding") {
            Some("same") => (around(height, dilation.0), around(width, dilation.1)),
            Some(_) => ((0, 0), (0, 0)),
            None => {
                let padding = call.pair("padding", 0);
                ((padding.0, padding.0), (padding.1, padding.1))
            }
        };
        let (mut source, mut pad) = (input, None);
        if let Some(padding) = &self.analysis.paddings[input] {
            source = padding.source;
            if zeros(Some(padding)).is_some() {
                rows = (rows.0 + padding.rows.0, rows.1 + padding.rows.1);
                cols = (cols.0 + padding.cols.0, cols.1 + padding.cols.1);
            } else {
                pad = self.pad_call(input)?;
            }
        }
        let sliding = Sliding {
            kernel: (height, width),
            stride: call.pair("stride", 1),
            padding: (rows.0, cols.0),
            padding_after: (rows.1, cols.1),
            dilation,
        };
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
        let Some(sliding) = self.pool_geometry(call) else { return Ok(None) };
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

    /// The geometry of a pool whose outputs are its inputs divided by its stride.
    fn pool_geometry(&self, call: &Call) -> Option<Sliding> {
        let kernel = call.pair("kernel_size", 1);
        let given = call.ints("stride").filter(|stride| !stride.is_empty());
        let stride = if given.is_some() { call.pair("stride", 1) } else { kernel };
        let padding = call.pair("padding", 0);
        let dilation = call.pair("dilation", 1);
        let ceil = call.flag("ceil_mode").unwrap_or(false);
        let after = |kernel: i64, stride: i64, padding: i64, dilation: i64| {
            let reach = dilation * (kernel - 1) + 1;
            let left = 2 * padding - reach;
            if left.div_euclid(stride) == -1 {
                return Some(padding);
            }
            // Rounded up, the last window ends behind the padding.
            (ceil && (left + stride - 1).div_euclid(stride) == -1)
                .then_some(reach - stride - padding)
        };
        Some(Sliding {
            kernel,
            stride,
            padding,
            padding_after: Size::from((
                after(kernel.0, stride.0, padding.0, dilation.0)?,
                after(kernel.1, stride.1, padding.1, dilation.1)?,
            )),
            dilation,
        })
    }
}
