"""Backbones for mmdet and its siblings: importing this registers `SparKBackbone`
in mmengine's MODELS, where they all find it.

    custom_imports = dict(imports=["spark_backbone.mmdet"])
    model = dict(
        backbone=dict(type="SparKBackbone", name="resnet50", weights="r50.safetensors"),
        ...
    )
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from . import Backbone

try:
    from mmengine.model import BaseModule
    from mmengine.registry import MODELS
except ImportError as error:
    raise ImportError(
        f"spark_backbone.mmdet needs mmengine, which cannot be imported: {error}"
    ) from error

__all__ = ["SparKBackbone"]


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of a map."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


@MODELS.register_module()
class SparKBackbone(Backbone, BaseModule):  # type: ignore[misc]
    """A backbone for mmdet's detectors.

    Args:
        name: model, one of `spark_backbone.list_models()`.
        weights: file to load, of any framework; or `init_cfg`, not both.
        out_indices: stages to put out, ascending, 0 the finest.
        frozen_stages: -1 freezes nothing, 0 the stem, 1 the stem and the first
            stage, and so on.
        norm_eval: batch norms use their running statistics in training, too.
        out_norm: a layer norm on each map, `norm0` and so on, as mmdet's ConvNeXt
            has.
        init_cfg: `dict(type="Pretrained", checkpoint=...)` loads a local file as
            `weights` does, and anything else as mmengine does.
        settings: further ones of `spark_backbone.Backbone`.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        out_norm: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        if weights is not None and init_cfg is not None:
            raise ValueError(
                f"weights is {os.fspath(weights)!r} and init_cfg is {init_cfg}, but only one "
                "of them can fill the backbone"
            )
        super().__init__(
            name,
            weights,
            out_indices,
            freeze_at=frozen_stages + 1,
            norm_eval=norm_eval,
            **settings,
        )
        self.init_cfg = init_cfg
        self._out_norms = [f"norm{level.stage}" for level in self.levels] if out_norm else []
        for norm, channels in zip(self._out_norms, self.channels):
            # ConvNeXt's epsilon.
            self.add_module(norm, _ChannelNorm(channels, eps=1e-6))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        maps = super().forward(images)
        for index, norm in enumerate(self._out_norms):
            maps[index] = self.get_submodule(norm)(maps[index])
        return tuple(maps)

    def init_weights(self) -> None:
        """Loads what `init_cfg` says; without it, the backbone keeps its weights."""
        checkpoint = self._local_checkpoint()
        if checkpoint is None:
            super().init_weights()
        else:
            # Ours reads every framework's naming; mmengine's asks for its own.
            self.load_weights(checkpoint)
            self._is_init = True

    def _local_checkpoint(self) -> str | None:
        """The file that `init_cfg` names, unless it is something else."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get("type") == "Pretrained":
            checkpoint = os.fspath(self.init_cfg["checkpoint"])
            return None if "://" in checkpoint else checkpoint
        return None
