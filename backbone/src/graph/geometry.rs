//! How the kernels of convolutions and pools slide.

use super::rules::Padding;
use super::ssa::Call;
use crate::Size;
use crate::layers::Sliding;

/// A convolution with such a kernel.
pub(super) fn convolution(call: &Call, kernel: Size) -> Sliding {
    let dilation = call.pair("dilation", 1);
    let (padding, padding_after) = match call.text("padding") {
        Some("same") => {
            let all = (dilation.0 * (kernel.0 - 1), dilation.1 * (kernel.1 - 1));
            let before = (all.0 / 2, all.1 / 2);
            (before, (all.0 - before.0, all.1 - before.1))
        }
        Some(_) => ((0, 0), (0, 0)),
        None => (call.pair("padding", 0), call.pair("padding", 0)),
    };
    Sliding { kernel, stride: call.pair("stride", 1), padding, padding_after, dilation }
}

/// A pool. Where the size of its output is rounded up, its last window ends behind the padding.
pub(super) fn pool(call: &Call) -> Sliding {
    let kernel = call.pair("kernel_size", 1);
    let given = call.ints("stride").filter(|stride| !stride.is_empty());
    let stride = if given.is_some() { call.pair("stride", 1) } else { kernel };
    let (padding, dilation) = (call.pair("padding", 0), call.pair("dilation", 1));
    let ceil = call.flag("ceil_mode") == Some(true);
    let after = |kernel: i64, stride: i64, padding: i64, dilation: i64| {
        let reach = dilation * (kernel - 1) + 1;
        let left = 2 * padding - reach;
        let rounded_up = ceil && left.div_euclid(stride) != -1;
        match rounded_up && (left + stride - 1).div_euclid(stride) == -1 {
            true => reach - stride - padding,
            false => padding,
        }
    };
    let padding_after = (
        after(kernel.0, stride.0, padding.0, dilation.0),
        after(kernel.1, stride.1, padding.1, dilation.1),
    );
    Sliding { kernel, stride, padding, padding_after, dilation }
}

/// The same kernel on the map before it was padded.
pub(super) fn with_padding(sliding: Sliding, padding: &Padding) -> Sliding {
    let (before, after) = (sliding.padding, sliding.padding_after);
    Sliding {
        padding: (before.0 + padding.rows.0, before.1 + padding.cols.0),
        padding_after: (after.0 + padding.rows.1, after.1 + padding.cols.1),
        ..sliding
    }
}

/// Whether a kernel's outputs are the inputs divided by the stride, so that every patch has outputs
/// of its own.
pub(super) fn is_aligned(sliding: &Sliding) -> bool {
    let Sliding { kernel, stride, padding, padding_after, dilation } = *sliding;
    let side = |kernel: i64, stride: i64, padding: i64, dilation: i64| {
        stride > 0 && (padding - dilation * (kernel - 1) - 1).div_euclid(stride) == -1
    };
    side(kernel.0, stride.0, padding.0 + padding_after.0, dilation.0)
        && side(kernel.1, stride.1, padding.1 + padding_after.1, dilation.1)
}
