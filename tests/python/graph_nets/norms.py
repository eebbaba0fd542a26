"""Norms, and convolutions that compute their weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Pyramid, conv_norm, stem


class DilatedNet(nn.Module):
    """DeepLab's: stride 16 and no further, then dilation; group norm, PReLU, chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(24)
        self.eighth = conv_norm(24, 32, stride=2)
        self.sixteenth = conv_norm(32, 48, stride=2)
        self.dilated = nn.Sequential(
            nn.Conv2d(48, 48, 3, padding=2, dilation=2, bias=False),
            nn.GroupNorm(6, 48),
            nn.PReLU(48),
            nn.Conv2d(48, 48, 3, padding=4, dilation=4, groups=4),
            nn.GroupNorm(1, 48),
            nn.PReLU(),
        )
        self.project = nn.Conv2d(96, 48, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fourth = self.stem(x)
        eighth = self.eighth(fourth)
        x = self.sixteenth(eighth)
        values, gates = torch.chunk(self.dilated(x), 2, 1)
        mixed = torch.cat([x, values * torch.sigmoid(gates), values - gates], 1)
        return fourth, eighth, self.project(mixed)


class StandardisedConv2d(nn.Conv2d):
    """Its weight has mean 0 and variance 1 in each output channel, times a gain."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        spread = self.weight.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
        weight = self.gain * (self.weight - mean) / (spread + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class BatchNormedConv2d(nn.Conv2d):
    """The same by a batch norm of the weight, as BiT and timm write it."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        flat = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, flat.reshape_as(self.weight), self.bias, self.stride, self.padding)


class WeightStandardNet(Pyramid):
    """Convolutions that compute their weight, with group norms; without running statistics."""

    def __init__(self) -> None:
        layers, inputs = [], 3
        for outputs in (16, 24, 32, 40, 48):
            layers.append(
                nn.Sequential(
                    StandardisedConv2d(inputs, outputs, 3, 2),
                    nn.GroupNorm(4, outputs),
                    nn.ELU(),
                    BatchNormedConv2d(outputs, outputs, 3, padding=1),
                    nn.GroupNorm(8, outputs),
                    nn.Mish(),
                )
            )
            inputs = outputs
        super().__init__(layers)


class GlobalResponseNorm(nn.Module):
    """Each channel by its norm over positions, relative to the mean of channels'; NHWC."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        norms = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        scale = norms / (norms.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * scale) + self.beta + x


class ConvNeXtV2Block(nn.Module):
    """With drop-path written by hand."""

    def __init__(self, channels: int, drop_prob: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = GlobalResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(y)))).permute(0, 3, 1, 2)
        if self.drop_prob > 0.0 and self.training:
            keep = 1.0 - self.drop_prob
            draws = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device)
            y = y / keep * draws.bernoulli_(keep)
        return x + y


class ChannelsFirstLayerNorm(nn.Module):
    """Of the channels, by means of axis 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNeXtV2(nn.Module):
    """As its authors write it."""

    def __init__(self, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        widths = (16, 24, 32, 48)
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, 16, 4, 4), ChannelsFirstLayerNorm(16))]
        )
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            self.downsample_layers.append(
                nn.Sequential(ChannelsFirstLayerNorm(inputs), nn.Conv2d(inputs, outputs, 2, 2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtV2Block(width, drop_path_rate) for _ in range(2)))
            for width in widths
        )
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean([-2, -1])))
