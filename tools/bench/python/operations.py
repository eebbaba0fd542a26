"""How many operations a piece of work takes, by torch's counter."""

from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode


def count(work):
    """Those of the convolutions and matrix products in `work`, whatever computes them: a product
    and its sum are two. Norms, activations and pooling are not counted."""
    formulas = {torch.ops.aten.convolution_backward: _of_convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return counter.get_total_flops()


def _of_convolution_backward(
    grad, x, weight, _bias, _stride, _padding, _dilation, transposed, _out_padding, _groups, wanted,
    out_shape=None,
):
    """Each gradient takes as much as the convolution itself. torch's own formula takes the channels
    of a weight's gradient as if there were no groups: too much by their number, which is that of
    the channels in a depthwise convolution."""
    of_input, of_weight, _of_bias = wanted
    positions = x[0] * prod((x if transposed else grad)[2:])
    return 2 * positions * prod(weight) * (of_input + of_weight)
