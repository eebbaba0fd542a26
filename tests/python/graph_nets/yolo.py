"""A backbone of detectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import conv_norm


class CSPBlock(nn.Module):
    """Half of the channels go through residual bottlenecks, half around them."""

    def __init__(self, channels: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = channels // 2
        self.through = conv_norm(channels, half, 1, act=nn.SiLU)
        self.around = conv_norm(channels, half, 1, act=nn.SiLU)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, 1, act=nn.SiLU), conv_norm(half, half, act=nn.SiLU))
            for _ in range(depth)
        )
        self.shortcut = shortcut
        self.join = conv_norm(2 * half, channels, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        y = self.through(x)
        for block in self.blocks:
            y = y + block(y) if self.shortcut else block(y)
        return self.join(torch.cat((y, self.around(x)), dim=1))


class SpatialPyramidPool(nn.Module):
    """Max pools up to 13×13 side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = conv_norm(channels, channels // 2, 1, act=nn.SiLU)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.widen = conv_norm(2 * channels, channels, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        return self.widen(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class CSPDarknet(nn.Module):
    """YOLO's backbone: a focus stem of strided slices, batch norms of other constants."""

    def __init__(self) -> None:
        super().__init__()
        self.focus = conv_norm(12, 16, act=nn.SiLU)
        self.dark2 = nn.Sequential(conv_norm(16, 32, stride=2, act=nn.SiLU), CSPBlock(32, 1))
        self.dark3 = nn.Sequential(conv_norm(32, 64, stride=2, act=nn.SiLU), CSPBlock(64, 2))
        self.dark4 = nn.Sequential(conv_norm(64, 96, stride=2, act=nn.SiLU), CSPBlock(96, 2))
        self.dark5 = nn.Sequential(
            conv_norm(96, 128, stride=2, act=nn.SiLU),
            SpatialPyramidPool(128),
            CSPBlock(128, 1, shortcut=False),
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03

    def forward(self, x: Tensor) -> list[Tensor]:
        corners = [x[..., i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        p1 = self.focus(torch.cat(corners, 1))
        p2 = self.dark2(p1)
        p3 = self.dark3(p2)
        p4 = self.dark4(p3)
        return [p2, p3, p4, self.dark5(p4)]
