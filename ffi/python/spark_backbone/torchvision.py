"""Backbones for torchvision's detectors.

    from spark_backbone.torchvision import mask_rcnn

    model = mask_rcnn("resnet50", "r50.safetensors", num_classes=91)
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from . import Backbone

try:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN as _BackboneWithFPN
    from torchvision.ops import MultiScaleRoIAlign
    from torchvision.ops.feature_pyramid_network import (
        ExtraFPNBlock,
        FeaturePyramidNetwork,
        LastLevelMaxPool,
    )
except ImportError as error:
    raise ImportError(
        f"spark_backbone.torchvision needs torchvision 0.28, which cannot be imported: {error}"
    ) from error

__all__ = ["BackboneWithFPN", "mask_rcnn"]


class BackboneWithFPN(_BackboneWithFPN):  # type: ignore[misc]
    """torchvision's `BackboneWithFPN` around one of our backbones: maps "0", "1",
    … of `out_channels` channels, finest first, and "pool" below them.

    Args:
        backbone: the body.
        out_channels: of every map.
        extra_blocks: what adds coarser maps; a max-pool ("pool") by default.
        norm_layer: norm of the pyramid's convolutions; none by default.
    """

    def __init__(
        self,
        backbone: Backbone,
        out_channels: int = 256,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        # Not torchvision's constructor: it takes the body apart into children to
        # be called one after the other.
        nn.Module.__init__(self)
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(
            in_channels_list=list(backbone.channels),
            out_channels=out_channels,
            extra_blocks=LastLevelMaxPool() if extra_blocks is None else extra_blocks,
            norm_layer=norm_layer,
        )
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels = OrderedDict((str(n), level) for n, level in enumerate(self.body(images)))
        maps: dict[str, Tensor] = self.fpn(levels)
        return maps


def mask_rcnn(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    num_classes: int,
    out_indices: Sequence[int] | None = None,
    freeze_at: int = 0,
    norm_eval: bool = False,
    drop_path_rate: float = 0.0,
    **settings: Any,
) -> MaskRCNN:
    """torchvision's Mask R-CNN on one of our backbones.

    Args:
        name: model of the backbone, with `weights`, `out_indices`, `freeze_at`,
            `norm_eval` and `drop_path_rate` as `Backbone` takes them.
        num_classes: with the background.
        settings: further ones of torchvision's `MaskRCNN`, such as `min_size`.
    """
    backbone = Backbone(
        name,
        weights,
        out_indices,
        freeze_at=freeze_at,
        norm_eval=norm_eval,
        drop_path_rate=drop_path_rate,
    )
    # One anchor size a map, eight times its stride as in the original; the pooled
    # map has twice the last stride.
    strides = (*backbone.strides, 2 * backbone.strides[-1])
    maps = [str(n) for n in range(len(backbone.strides))]
    defaults = {
        "rpn_anchor_generator": AnchorGenerator(
            sizes=tuple((8 * stride,) for stride in strides),
            aspect_ratios=((0.5, 1.0, 2.0),) * len(strides),
        ),
        "box_roi_pool": MultiScaleRoIAlign(maps, output_size=7, sampling_ratio=2),
        "mask_roi_pool": MultiScaleRoIAlign(maps, output_size=14, sampling_ratio=2),
    }
    return MaskRCNN(
        BackboneWithFPN(backbone), num_classes=num_classes, **{**defaults, **settings}
    )
