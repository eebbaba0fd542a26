"""Pools, padding, kernels and resampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Pyramid, conv_norm, stem


class TransposedNet(nn.Module):
    """Down and up again by transposed convolutions: 2×2 and overlapping 4×4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(16)
        self.down1 = conv_norm(16, 24, stride=2)
        self.down2 = conv_norm(24, 32, stride=2)
        self.up2 = nn.ConvTranspose2d(32, 24, 2, 2)
        self.up1 = nn.ConvTranspose2d(24, 16, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.widen = nn.ConvTranspose2d(24, 24, 3, 1, 1, groups=2)
        self.coarse = nn.Sequential(conv_norm(32, 32), conv_norm(32, 40, stride=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        fourth = self.stem(x)
        eighth = self.down1(fourth)
        sixteenth = self.down2(eighth)
        eighth = self.widen(eighth + self.up2(sixteenth))
        fourth = F.relu(self.norm(fourth + self.up1(eighth)))
        return [fourth, eighth, sixteenth, self.coarse(sixteenth)]


class Hourglass(nn.Module):
    """Residual paths on coarser grids, brought back bilinearly; each within the next."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.AvgPool2d(2), conv_norm(channels, channels))
        self.inner = Hourglass(channels, depth - 1) if depth > 1 else conv_norm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(self.down(x))
        return x + F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


class HourglassNet(nn.Module):
    """Hourglasses at stride 4, and at stride 16 one with nearest neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(16)
        self.hourglass = Hourglass(16, 3)
        self.down = nn.ModuleList(conv_norm(16, 16, stride=2) for _ in range(3))
        self.smooth = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        fourth = self.hourglass(self.stem(x))
        eighth = self.down[0](fourth)
        sixteenth = self.down[1](eighth)
        last = self.down[2](sixteenth)
        sixteenth = sixteenth + F.interpolate(last, scale_factor=2, mode="nearest")
        return [fourth, eighth + self.smooth(sixteenth), sixteenth, last]


class BlurPool(nn.Module):
    """Halves a map through a fixed binomial filter, beyond whose edge it is reflected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", torch.outer(row, row).repeat(channels, 1, 1, 1), False)
        self.pad = nn.ReflectionPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.filter, stride=2, groups=x.shape[1])


class BlurPoolNet(Pyramid):
    """Pools by `BlurPool`, whose filter is no part of the state dict."""

    def __init__(self) -> None:
        widths = (3, 16, 24, 32, 40, 48)
        super().__init__(
            nn.Sequential(conv_norm(inputs, outputs), BlurPool(outputs))
            for inputs, outputs in zip(widths, widths[1:], strict=False)
        )


class CeilNet(nn.Module):
    """Pools that round up, that count padding or do not, and padding on one side alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.norm = nn.BatchNorm2d(16)
        self.ceil_max = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv = conv_norm(16, 24)
        self.ceil_average = nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False)
        self.average = nn.AvgPool2d(3, 2, 1, count_include_pad=True)
        self.inside = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.last = nn.AvgPool2d(2, 2, divisor_override=3)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.hardswish(self.norm(self.stem(F.pad(x, (0, 1, 0, 1)))))
        fourth = self.ceil_max(x)
        eighth = self.ceil_average(self.conv(fourth))
        sixteenth = self.average(eighth)
        sixteenth = sixteenth - self.inside(sixteenth)
        return [fourth, eighth, sixteenth, self.last(sixteenth)]


class RectangularNet(nn.Module):
    """Kernels, strides, padding and dilation that differ by axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, (7, 3), 2, (3, 1)), nn.BatchNorm2d(16), nn.MaxPool2d((3, 2), 2, (1, 0))
        )
        self.cross = nn.Sequential(
            nn.Conv2d(16, 24, (1, 7), padding=(0, 3), bias=False),
            nn.Conv2d(24, 24, (7, 1), padding=(3, 0), bias=False),
            nn.BatchNorm2d(24),
            nn.LeakyReLU(0.1),
            nn.AvgPool2d((1, 3), 1, (0, 1)),
        )
        self.wide = nn.Conv2d(24, 24, 3, 2, (1, 3), dilation=(1, 3), groups=3)
        self.tall = nn.Conv2d(24, 32, (5, 1), 2, (2, 0))
        self.last = nn.Conv2d(32, 40, (2, 4), 2, (0, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        fourth = self.cross(self.stem(x))
        eighth = torch.relu(self.wide(fourth))
        sixteenth = torch.relu(self.tall(eighth))
        return [fourth, eighth, sixteenth, self.last(sixteenth)]
