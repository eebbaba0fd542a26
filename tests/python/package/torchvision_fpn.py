"""The package's torchvision part."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.models.detection.backbone_utils import BackboneWithFPN as Torchvisions

from spark_backbone import Backbone
from spark_backbone.torchvision import BackboneWithFPN, mask_rcnn

from .harness import check


@check
def torchvision_fpn_has_its_names(folder: Path) -> None:
    body = Backbone("resnet18").eval()
    pyramid = BackboneWithFPN(body, out_channels=32)
    assert isinstance(pyramid, Torchvisions)
    maps = pyramid(torch.randn(1, 3, 64, 64))
    assert {name: tuple(level.shape[1:]) for name, level in maps.items()} == {
        "0": (32, 16, 16),
        "1": (32, 8, 8),
        "2": (32, 4, 4),
        "3": (32, 2, 2),
        "pool": (32, 1, 1),
    }
    names = pyramid.state_dict()
    assert "body.layer1.0.conv1.weight" in names and "fpn.inner_blocks.0.0.weight" in names


@check
def torchvision_detector_takes_any_levels(folder: Path) -> None:
    model = mask_rcnn(
        "resnet18", num_classes=2, out_indices=(1, 2), freeze_at=1, min_size=64, max_size=64
    )
    assert model.rpn.anchor_generator.sizes == ((64,), (128,), (256,))
    targets = [
        {
            "boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, 64, 64, dtype=torch.uint8),
        }
    ]
    losses = model([torch.rand(3, 64, 64)], targets)
    sum(losses.values()).backward()
    body = model.backbone.body
    assert body.conv1.weight.grad is None and body.bn1.weight.grad is None
    assert body.layer1.get_parameter("0.conv1.weight").grad is not None
    with torch.no_grad():
        (found,) = model.eval()([torch.rand(3, 64, 64)])
    assert set(found) == {"boxes", "labels", "scores", "masks"}
