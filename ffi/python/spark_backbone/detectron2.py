"""Backbones for detectron2: importing this registers `build_spark_backbone` and
`build_spark_fpn_backbone` in its BACKBONE_REGISTRY.

    from detectron2.config import get_cfg
    from spark_backbone import config_file
    from spark_backbone.detectron2 import add_spark_config

    cfg = get_cfg()
    add_spark_config(cfg)
    cfg.merge_from_file(config_file("detectron2/mask_rcnn_resnet50_fpn.yaml"))
    cfg.MODEL.SPARK.WEIGHTS = "r50.safetensors"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from . import Backbone

try:
    from detectron2.config import CfgNode
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, FPN
    from detectron2.modeling import Backbone as _Backbone
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
except ImportError as error:
    raise ImportError(
        f"spark_backbone.detectron2 needs detectron2, which cannot be imported: {error}"
    ) from error

__all__ = [
    "SparKBackbone",
    "add_spark_config",
    "build_spark_backbone",
    "build_spark_fpn_backbone",
]

# What detectron2 calls the stages.
FEATURES = ("res2", "res3", "res4", "res5")


class SparKBackbone(Backbone, _Backbone):  # type: ignore[misc]
    """A backbone whose maps have detectron2's names.

    Args:
        name: model, with `settings` as `spark_backbone.Backbone` takes them.
        out_features: which of res2, res3, res4, res5 to put out, in this order.
    """

    def __init__(
        self, name: str, out_features: Sequence[str] = FEATURES, **settings: Any
    ) -> None:
        unknown = [feature for feature in out_features if feature not in FEATURES]
        if unknown:
            raise ValueError(
                f"out_features is {list(out_features)}, but each must be one of "
                f"{', '.join(FEATURES)}"
            )
        super().__init__(
            name, out_indices=[FEATURES.index(feature) for feature in out_features], **settings
        )
        # What detectron2's own backbones hold.
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, self.channels, strict=True))
        self._out_feature_strides = dict(zip(out_features, self.strides, strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return dict(zip(self._out_features, super().forward(images), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            feature: ShapeSpec(
                channels=self._out_feature_channels[feature],
                stride=self._out_feature_strides[feature],
            )
            for feature in self._out_features
        }

    @property
    def size_divisibility(self) -> int:
        """Images are padded to it, so that maps of all levels cover the same."""
        return max(self.strides)


def add_spark_config(cfg: CfgNode) -> None:
    """Adds `MODEL.SPARK` with its defaults to a configuration."""
    cfg.MODEL.SPARK = CfgNode()
    # One of spark_backbone.list_models().
    cfg.MODEL.SPARK.NAME = "resnet50"
    # File of pretrained weights, of any framework; MODEL.WEIGHTS is for
    # checkpoints of the whole detector.
    cfg.MODEL.SPARK.WEIGHTS = ""
    # Maps to put out, finest first.
    cfg.MODEL.SPARK.OUT_FEATURES = list(FEATURES)
    # Drop-path rate of the last block.
    cfg.MODEL.SPARK.DROP_PATH_RATE = 0.0
    # Batch norms use their running statistics in training, too, as detectron2's
    # "FrozenBN"; their weights and biases are trained.
    cfg.MODEL.SPARK.NORM_EVAL = True


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_spark_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SparKBackbone:
    """The backbone of `MODEL.SPARK`, its first `MODEL.BACKBONE.FREEZE_AT` stages
    frozen."""
    spark = cfg.MODEL.SPARK
    return SparKBackbone(
        spark.NAME,
        spark.OUT_FEATURES,
        weights=spark.WEIGHTS or None,
        in_chans=input_shape.channels,
        drop_path_rate=spark.DROP_PATH_RATE,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm_eval=spark.NORM_EVAL,
    )


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_spark_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The backbone of `MODEL.SPARK` under the feature pyramid of `MODEL.FPN`."""
    return FPN(
        bottom_up=build_spark_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
