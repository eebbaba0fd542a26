"""Tied weights, several outputs, and other orders of axes and channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv_norm, stem


class TiedNet(nn.Module):
    """One convolution under two names and used three times, one bias in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(16)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.again = self.first
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.down = nn.ModuleList(nn.Conv2d(16, 16, 3, 2, 1) for _ in range(3))
        self.down[1].weight = self.down[0].weight
        self.down[2].bias = self.first.bias

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = [x]
        for down, norm in zip(self.down, self.norms, strict=True):
            x = F.relu(norm(self.again(F.relu(self.first(x))) + x))
            x = F.relu(down(x))
            maps.append(x)
        return maps


class TwoOutputs(nn.Module):
    """Two maps, in a dictionary, and a vector that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(24)
        self.high = nn.Sequential(conv_norm(24, 32, stride=2), conv_norm(32, 40, stride=2))
        self.head = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.stem(x)
        high = self.high(low)
        return {"low": low, "high": high, "scores": self.head(high.mean((2, 3)))}


class ChannelsLastNet(nn.Module):
    """Puts out NHWC maps, and works on them by linear layers between depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 24, 32, 40)
        self.down = nn.ModuleList(
            nn.Conv2d(inputs, outputs, stride, stride)
            for inputs, outputs, stride in zip(widths, widths[1:], (4, 2, 2, 2), strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU("tanh"), nn.Linear(2 * width, width))
            for width in widths[1:]
        )
        self.mixes = nn.ModuleList(
            nn.Conv2d(width, width, 5, padding=2, groups=width) for width in widths[1:]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = x.permute(0, 2, 3, 1)
        for down, norm, mlp, mix in zip(self.down, self.norms, self.mlps, self.mixes, strict=True):
            x = down(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = x + mlp(norm(x))
            x = x + mix(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            maps.append(x)
        return maps


class MixerNet(nn.Module):
    """Blocks that work on positions as one axis: `[N, H·W, C]` and back."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 32, 40)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, stride, stride), nn.BatchNorm2d(outputs))
            for inputs, outputs, stride in zip((3, *widths), widths, (4, 2, 2, 2), strict=False)
        )
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.SiLU(), nn.Linear(2 * w, w))
            for w in widths
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for down, mlp in zip(self.down, self.mlps, strict=True):
            x = down(x)
            batch, channels, height, width = x.shape
            tokens = x.flatten(2).transpose(1, 2)
            tokens = tokens + mlp(tokens)
            x = tokens.transpose(1, 2).reshape(batch, channels, height, width)
            maps.append(x)
        return maps


class ShuffleNet(nn.Module):
    """Groups whose channels are shuffled by `view` and `transpose`; halves that pass untouched."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 24, 32, 40, 48)
        self.down = nn.ModuleList(
            conv_norm(inputs, outputs, stride=2, act=nn.Hardswish)
            for inputs, outputs in zip(widths, widths[1:], strict=False)
        )
        self.halves = nn.ModuleList(
            nn.Conv2d(width // 2, width // 2, 3, padding=1, groups=2) for width in widths[1:]
        )

    @staticmethod
    def shuffled(x: Tensor, groups: int) -> Tensor:
        batch, channels, height, width = x.size()
        x = x.view(batch, groups, channels // groups, height, width)
        return x.transpose(1, 2).contiguous().view(batch, -1, height, width)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for down, half in zip(self.down, self.halves, strict=True):
            kept, changed = down(x).chunk(2, dim=1)
            x = self.shuffled(torch.cat([kept, half(changed)], dim=1), 2)
            maps.append(x)
        return maps[1:]
