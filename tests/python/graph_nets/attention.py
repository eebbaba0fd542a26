"""Attention by channel and by position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv_norm


class SqueezeExcitation(nn.Module):
    """By linear layers, with `view` and `expand_as`."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        scale = self.pool(x).view(batch, channels)
        return x * self.fc(scale).view(batch, channels, 1, 1).expand_as(x)


class SENet(nn.Module):
    """A classifier: pooled, flattened, dropped out. Its stages are to be found."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16, stride=2), nn.MaxPool2d(3, 2, 1))
        widths = [16, 16, 32, 48, 64]
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv_norm(inputs, outputs, stride=1 if index == 0 else 2),
                conv_norm(outputs, outputs),
                SqueezeExcitation(outputs),
            )
            for index, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class CBAM(nn.Module):
    """Attention by channel, from mean and maximum over positions, and by position, from mean
    and maximum over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // 4),
            nn.ReLU(),
            nn.Linear(channels // 4, channels),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.size(2), x.size(3)
        average, maximum = F.avg_pool2d(x, size, size), F.max_pool2d(x, size, size)
        by_channel = torch.sigmoid(self.mlp(average) + self.mlp(maximum))
        x = x * by_channel.unsqueeze(2).unsqueeze(3).expand_as(x)
        pooled = (torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1))
        return x * torch.sigmoid(self.norm(self.spatial(torch.cat(pooled, dim=1))))


class CBAMNet(nn.Module):
    """A plain network with `CBAM` in every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16, 7, 2), nn.MaxPool2d(2))
        widths = (16, 16, 24, 32, 40)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_norm(inputs, outputs, stride=1 + (index > 0)), CBAM(outputs))
            for index, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.fc = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean(dim=[-2, -1]))
