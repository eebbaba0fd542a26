"""What several networks are made of."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        act(),
    )


def stem(width: int) -> nn.Sequential:
    """To stride 4."""
    return nn.Sequential(conv_norm(3, 16, stride=2), conv_norm(16, width, stride=2))


class Pyramid(nn.Module):
    """Layers one after the other; the maps of all but the first."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps[1:]
