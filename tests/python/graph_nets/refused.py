"""Networks that cannot be run on visible patches, each for a reason of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv_norm, stem


def trunk(channels: int = 32) -> nn.Sequential:
    """To stride 16."""
    return nn.Sequential(
        *stem(channels),
        conv_norm(channels, channels, stride=2),
        conv_norm(channels, channels, stride=2),
    )


class TwoMaps(nn.Module):
    """The maps of strides 16 and 32; `change` is what is done to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk()
        self.last = conv_norm(32, 32, stride=2)

    def change(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.change(self.trunk(x))
        return [x, self.last(x)]


class NonLocalNet(TwoMaps):
    """Attention among all positions: what a masked one says is not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(32, 16, 1) for _ in range(3))
        self.out = nn.Conv2d(16, 32, 1)

    def change(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(1, 2) / 4, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, 16, height, width)
        return x + self.out(mixed)


class CoordinateNet(TwoMaps):
    """Coordinate attention pools along one axis: rows and columns of unequal visible counts."""

    def __init__(self) -> None:
        super().__init__()
        self.by_row = nn.AdaptiveAvgPool2d((None, 1))
        self.by_column = nn.AdaptiveAvgPool2d((1, None))
        self.squeeze = conv_norm(32, 8, 1, act=nn.Hardswish)
        self.rows, self.columns = nn.Conv2d(8, 32, 1), nn.Conv2d(8, 32, 1)

    def change(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        strips = torch.cat([self.by_row(x), self.by_column(x).permute(0, 1, 3, 2)], dim=2)
        rows, columns = torch.split(self.squeeze(strips), [height, width], dim=2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()


class PerPosition(TwoMaps):
    """A parameter for each position of the size it was written for."""

    def __init__(self, height: int = 192, width: int = 256) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 32, height // 16, width // 16))

    def change(self, x: Tensor) -> Tensor:
        return x + self.position


class InPlaceView(TwoMaps):
    """Writes to some channels through a view, and goes on with what was viewed."""

    def change(self, x: Tensor) -> Tensor:
        x = x * 2
        x[:, :8] += 1
        return x


class ByContent(TwoMaps):
    """Which branch runs depends on the image: no graph has both."""

    def change(self, x: Tensor) -> Tensor:
        if x.mean() > 0.5:
            x = x * 2
        return x


class FlatMLP(nn.Module):
    """No convolution: layers on the flattened image, of one size."""

    def __init__(self, height: int = 192, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * height * width, 8), nn.ReLU(), nn.Linear(8, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TinyTransformer(nn.Module):
    """Patches of 16×16 pixels, attention among them, a class token."""

    def __init__(self, height: int = 192, width: int = 256) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        positions = (height // 16) * (width // 16) + 1
        self.position = nn.Parameter(torch.randn(1, positions, 32) * 0.02)
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.project = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        batch, count, channels = x.shape
        heads = self.qkv(self.norm1(x)).reshape(batch, count, 3, 4, channels // 4)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, count, channels))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class AxisStrides(nn.Module):
    """Halves rows, and after an activation columns: between, the grid is not the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk()
        self.tall = nn.Conv2d(32, 32, (3, 1), (2, 1), (1, 0))
        self.broad = nn.Conv2d(32, 32, (1, 3), (1, 2), (0, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.trunk(x)
        return [x, self.broad(torch.relu(self.tall(x)))]


class LeNet(nn.Module):
    """Convolutions without padding, and a head of one image size."""

    def __init__(self, height: int = 192, width: int = 256) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 5), nn.MaxPool2d(2)
        )
        self.size = 16 * ((height - 12) // 4) * ((width - 12) // 4)
        self.head = nn.Linear(self.size, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(-1, self.size))
