"""timm's networks computed densely and masked after every layer.

As `masked` does it, for networks that others have written: the module of a layer
stays, with its parameters and their names, and what `masked`'s layers do is laid
around its forward. Means over an image, which squeeze-and-excitation takes, are
those over its visible positions.
"""

import functools

import timm
import torch
from timm.layers.squeeze_excite import SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn

import masked

# Those of the maps that the decoder takes.
STRIDES = (4, 8, 16, 32)

# They give 0 for the 0 of a masked position.
ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Hardswish, nn.LeakyReLU)


def pyramid(name):
    """The network whose outputs are the maps of strides 4 to 32."""
    maps = timm.create_model(name, features_only=True).feature_info
    strides = zip(maps.out_indices, maps.reduction(), strict=True)
    wanted = [index for index, stride in strides if stride in STRIDES]
    return timm.create_model(name, features_only=True, out_indices=wanted)


def build(name):
    """The pyramid of timm's `name`, masked after every layer."""
    network = pyramid(name)
    network.channels = network.feature_info.channels()
    network.norm = masked.BatchNorm2d
    of_vectors = set()
    for module in network.modules():
        if isinstance(module, SEModule | SqueezeExcite):
            of_vectors.update(module.modules())
            first = module.fc1 if isinstance(module, SEModule) else module.conv_reduce
            first.register_forward_pre_hook(_mean_of_visible)
    for module in set(network.modules()) - of_vectors:
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            module.register_forward_hook(_masked)
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = _on_visible(type(module))
        elif not any(module.children()) and not isinstance(module, (nn.Identity, *ACTIVATIONS)):
            raise SystemExit(f"{name} has a {type(module).__name__}, which this cannot mask")
    return network


def _masked(_layer, _inputs, x):
    return x.mul_(masked.mask_at(*x.shape[2:]))


def _mean_of_visible(_layer, inputs):
    (mean,) = inputs
    return mean / masked.share_visible()


@functools.cache
def _on_visible(norm):
    """The class of a batch norm that sees the visible positions alone."""

    class OnVisible(norm):
        def forward(self, x):
            where = masked.visible(*x.shape[2:])
            positions = x.permute(0, 2, 3, 1)
            # As maps of one position, which is what such a norm takes.
            seen = super().forward(positions[where][:, :, None, None])[:, :, 0, 0]
            normed = torch.zeros_like(positions)
            normed[where] = seen
            return normed.permute(0, 3, 1, 2)

    return OnVisible
