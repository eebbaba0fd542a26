"""Networks as users write them, each with something that timm's do not have, or not so.

Those of `REFUSED` run on whole grids only, or not at all; why is said where they stand.
"""

from __future__ import annotations

from torch import nn

from .attention import CBAMNet, SENet
from .layouts import ChannelsLastNet, MixerNet, ShuffleNet, TiedNet, TwoOutputs
from .norms import ConvNeXtV2, DilatedNet, WeightStandardNet
from .refused import (
    AxisStrides,
    ByContent,
    CoordinateNet,
    FlatMLP,
    InPlaceView,
    LeNet,
    NonLocalNet,
    PerPosition,
    TinyTransformer,
)
from .windows import BlurPoolNet, CeilNet, HourglassNet, RectangularNet, TransposedNet
from .yolo import CSPDarknet

NETS: dict[str, type[nn.Module]] = {
    "senet": SENet,
    "cspdarknet": CSPDarknet,
    "dilated": DilatedNet,
    "weight_standard": WeightStandardNet,
    "convnextv2_user": ConvNeXtV2,
    "transposed": TransposedNet,
    "hourglass": HourglassNet,
    "blurpool": BlurPoolNet,
    "ceil": CeilNet,
    "rectangular": RectangularNet,
    "tied": TiedNet,
    "two_outputs": TwoOutputs,
    "channels_last": ChannelsLastNet,
    "mixer": MixerNet,
    "shuffle": ShuffleNet,
    "cbam": CBAMNet,
}

REFUSED: dict[str, type[nn.Module]] = {
    "non_local": NonLocalNet,
    "coordinate": CoordinateNet,
    "per_position": PerPosition,
    "in_place_view": InPlaceView,
    "by_content": ByContent,
    "flat_mlp": FlatMLP,
    "tiny_transformer": TinyTransformer,
    "axis_strides": AxisStrides,
    "lenet": LeNet,
}
