"""ResNet and ConvNeXt computed densely and masked after every layer.

This is how SparK is usually run in PyTorch: a global mask, dense convolutions
and poolings whose output is multiplied by the mask, and norms over the visible
positions, which are gathered, normalised, and scattered into zeros. Parameters
have the names of timm's ResNet and of the official ConvNeXt.
"""

import torch
from torch import nn
from torch.nn import functional

# [N, 1, rows, columns], true where a patch is visible.
_active = None


def set_active(active):
    global _active
    _active = active


def share_visible():
    """The share of every image that is visible: masks hide as many patches of each."""
    return _active[0].float().mean()


def mask_at(height, width):
    """The mask [N, 1, height, width] of a map of this size."""
    rows, columns = height // _active.shape[2], width // _active.shape[3]
    return _active.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)


def visible(height, width):
    """Where a map of this size is visible: image, row and column of each position."""
    return mask_at(height, width).squeeze(1).nonzero(as_tuple=True)


class Conv2d(nn.Conv2d):
    def forward(self, x):
        x = super().forward(x)
        return x.mul_(mask_at(*x.shape[2:]))


class MaxPool2d(nn.MaxPool2d):
    def forward(self, x):
        x = super().forward(x)
        return x.mul_(mask_at(*x.shape[2:]))


class BatchNorm2d(nn.BatchNorm1d):
    def forward(self, x):
        where = visible(*x.shape[2:])
        positions = x.permute(0, 2, 3, 1)
        seen = super().forward(positions[where])
        # Of another type than the input under autocast.
        normed = torch.zeros_like(positions, dtype=seen.dtype)
        normed[where] = seen
        return normed.permute(0, 3, 1, 2)


class LayerNorm(nn.LayerNorm):
    """Of maps [N, H, W, C]."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        where = visible(*x.shape[1:3])
        seen = super().forward(x[where])
        normed = torch.zeros_like(x, dtype=seen.dtype)
        normed[where] = seen
        return normed


class LayerNorm2d(LayerNorm):
    """Of maps [N, C, H, W]."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    def __init__(self, channels, width, out, stride, bottleneck):
        super().__init__()
        if bottleneck:
            self.conv1 = Conv2d(channels, width, 1, bias=False)
            self.conv2 = Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = Conv2d(width, out, 1, bias=False)
            self.bn3 = BatchNorm2d(out)
        else:
            self.conv1 = Conv2d(channels, width, 3, stride, 1, bias=False)
            self.conv2 = Conv2d(width, out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = BatchNorm2d(width), BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != out:
            conv = Conv2d(channels, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, BatchNorm2d(out))
        self.bottleneck = bottleneck

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(functional.relu(y, inplace=True)))
        y = y + (x if self.downsample is None else self.downsample(x))
        return functional.relu(y, inplace=True)


class ResNet(nn.Module):
    def __init__(self, bottleneck, depths):
        super().__init__()
        self.conv1 = Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.maxpool = MaxPool2d(3, 2, 1)
        self.channels = []
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            out = width * (4 if bottleneck else 1)
            blocks = []
            for index in range(depth):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(ResidualBlock(channels, width, out, stride, bottleneck))
                channels = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels.append(out)

    def norm(self, channels):
        return BatchNorm2d(channels)

    def forward(self, x):
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            levels.append(x)
        return levels


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.dwconv = Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full([channels], 1e-6))

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(y)))
        y = y.permute(0, 3, 1, 2)
        return x + y * mask_at(*y.shape[2:])


class ConvNeXt(nn.Module):
    def __init__(self, depths, width):
        super().__init__()
        self.channels = [width << stage for stage in range(4)]
        stem = nn.Sequential(Conv2d(3, width, 4, 4), LayerNorm2d(width))
        self.downsample_layers = nn.ModuleList([stem])
        for from_, to in zip(self.channels, self.channels[1:]):
            layer = nn.Sequential(LayerNorm2d(from_), Conv2d(from_, to, 2, 2))
            self.downsample_layers.append(layer)
        stages = [
            nn.Sequential(*[ConvNeXtBlock(channels) for _ in range(depth)])
            for channels, depth in zip(self.channels, depths)
        ]
        self.stages = nn.ModuleList(stages)
        # A classifier's, which official checkpoints hold.
        self.unused_norm = nn.LayerNorm(self.channels[-1])

    def norm(self, channels):
        return LayerNorm2d(channels)

    def forward(self, x):
        levels = []
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = stage(downsample(x))
            levels.append(x)
        return levels


ENCODERS = {
    "resnet18": (ResNet, False, [2, 2, 2, 2]),
    "resnet34": (ResNet, False, [3, 4, 6, 3]),
    "resnet50": (ResNet, True, [3, 4, 6, 3]),
    "resnet101": (ResNet, True, [3, 4, 23, 3]),
    "convnext_atto": (ConvNeXt, [2, 2, 6, 2], 40),
    "convnext_femto": (ConvNeXt, [2, 2, 6, 2], 48),
    "convnext_pico": (ConvNeXt, [2, 2, 6, 2], 64),
    "convnext_nano": (ConvNeXt, [2, 2, 8, 2], 80),
    "convnext_tiny": (ConvNeXt, [3, 3, 9, 3], 96),
    "convnext_small": (ConvNeXt, [3, 3, 27, 3], 96),
    "convnext_base": (ConvNeXt, [3, 3, 27, 3], 128),
    "convnext_large": (ConvNeXt, [3, 3, 27, 3], 192),
}


def build(name):
    if name not in ENCODERS:
        raise SystemExit(f"the model is {name!r}, but it must be one of {', '.join(ENCODERS)}")
    kind, *arguments = ENCODERS[name]
    return kind(*arguments)
