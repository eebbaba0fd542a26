"""The module among PyTorch's: conversion, modes, optimizers, autograd."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import spark_backbone
from spark_backbone import Backbone, Level

from .harness import check, equal, images, refuses, total


@check
def parameters_are_the_librarys(folder: Path) -> None:
    backbone = Backbone("convnext_tiny", out_indices=(1, 3)).eval()
    held = backbone.torchscript.named_parameters()
    assert set(held) == {name for name, _ in backbone.named_parameters()}
    for name, parameter in backbone.named_parameters():
        assert isinstance(parameter, nn.Parameter) and parameter.is_leaf, name
        assert held[name] is parameter, name
        assert backbone.get_parameter(name) is parameter
    assert backbone.levels == (Level(1, 192, 8), Level(3, 768, 32))
    assert backbone.out_indices == (1, 3)
    assert [info["num_chs"] for info in backbone.feature_info] == [192, 768]
    assert repr(backbone) == "Backbone('convnext_tiny', out_indices=(1, 3))"
    maps = backbone(images())
    assert [tuple(level.shape) for level in maps] == [(2, 192, 8, 8), (2, 768, 2, 2)]
    total(maps).backward()
    # What the library computed with got its gradient through the module's object.
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    # Nothing else is a parameter, as of timm's pyramids.
    for name, indices, theirs in (
        ("convnext_tiny", (0, 1, 2, 3), (0, 1, 2, 3)),
        ("convnext_tiny", (0, 2), (0, 2)),
        # timm counts the stem of a ResNet.
        ("resnet18", (0, 1), (1, 2)),
    ):
        ours = Backbone(name, out_indices=indices)
        reference = timm.create_model(name, features_only=True, out_indices=theirs)
        count = [sum(p.numel() for p in m.parameters()) for m in (ours, reference)]
        assert count[0] == count[1], name


@check
def models_are_listed(folder: Path) -> None:
    names = spark_backbone.list_models()
    assert len(names) == len(set(names)) and {"resnet50", "convnext_tiny"} <= set(names)
    for name in ("mmdet/mask_rcnn_resnet50_fpn.py", "detectron2/mask_rcnn_resnet50_fpn.yaml"):
        assert Path(spark_backbone.config_file(name)).is_file()


@check
def conversions_keep_sharing(folder: Path) -> None:
    backbone = Backbone("resnet18")
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    total(backbone(images())).backward()
    before = {name: tensor for name, tensor in backbone.state_dict(keep_vars=True).items()}
    outer = nn.Sequential(nn.ModuleDict({"backbone": backbone}))
    assert outer.to(torch.float64) is outer
    held = backbone.torchscript.named_parameters() | backbone.torchscript.named_buffers()
    for name, tensor in backbone.state_dict(keep_vars=True).items():
        assert tensor is before[name] is held[name], name
        whole = name.endswith("num_batches_tracked")
        assert tensor.dtype == (torch.int64 if whole else torch.float64), name
        assert tensor.grad is None or tensor.grad.dtype == torch.float64, name
    assert backbone.config["dtype"] == "float64"
    maps = backbone(images(dtype=torch.float64))
    assert maps[0].dtype == torch.float64
    # The optimizer made before the conversion still trains these tensors.
    was = backbone.conv1.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(backbone.conv1.weight, was)

    # A part alone, and from the other side.
    backbone.layer1.float()
    assert backbone.layer1.get_parameter("0.conv1.weight").dtype == torch.float32
    backbone.torchscript.to("float32", "")
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    refuses(lambda: backbone.to("meta"), "meta", "library")


@check
def modes_reach_the_library(folder: Path) -> None:
    backbone = Backbone("resnet18")
    outer = nn.ModuleDict({"backbone": backbone})

    def statistics() -> list[torch.Tensor]:
        return [buffer.clone() for name, buffer in backbone.named_buffers() if "mean" in name]

    def changed(mode: bool) -> list[bool]:
        outer.train(mode)
        before = statistics()
        backbone(images())
        return [not torch.equal(a, b) for a, b in zip(before, statistics(), strict=True)]

    assert all(changed(True)) and backbone.config["training"]
    assert not any(changed(False)) and not backbone.config["training"]
    backbone.norm_eval = True
    assert backbone.norm_eval and not any(changed(True))
    backbone.norm_eval = False
    assert all(changed(True))

    assert backbone.freeze(2) is backbone
    moved = dict(
        zip((name for name, _ in backbone.named_buffers() if "mean" in name), changed(True))
    )
    for name, parameter in backbone.named_parameters():
        frozen = name.startswith(("conv1.", "bn1.", "layer1."))
        assert parameter.requires_grad != frozen, name
    for name, move in moved.items():
        assert move != name.startswith(("bn1.", "layer1.")), name
    total(backbone(images())).backward()
    assert backbone.conv1.weight.grad is None
    assert backbone.layer2.get_parameter("0.conv1.weight").grad is not None
    backbone.freeze(0)
    assert all(parameter.requires_grad for parameter in backbone.parameters()) and all(
        changed(True)
    )


@check
def an_optimizer_trains_it(folder: Path) -> None:
    backbone = Backbone("resnet18").eval()
    batch = images()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        assert backbone.conv1.weight.grad is None
        loss = total(backbone(batch))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # The loss is the features' size, so following its gradient makes it smaller.
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0], losses
    nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
    backbone.zero_grad()
    backbone.requires_grad_(False)
    assert not backbone(batch)[-1].requires_grad


@check
def gradient_modes_are_the_threads(folder: Path) -> None:
    backbone = Backbone("resnet18").eval()
    batch = images()
    plain = backbone(batch)
    assert all(level.requires_grad for level in plain)
    with torch.no_grad():
        unrecorded = backbone(batch)
    with torch.inference_mode():
        inferred = backbone(batch)
    assert equal(plain, unrecorded) and equal(plain, inferred)
    assert not unrecorded[0].requires_grad and inferred[0].is_inference()


@check
def checkpointing_gives_the_same_gradients(folder: Path) -> None:
    backbone = Backbone("resnet18").eval()
    batch = images()

    def gradients(reentrant: bool | None) -> list[torch.Tensor]:
        backbone.zero_grad()
        if reentrant is None:
            maps = backbone(batch)
        else:
            source = batch.clone().requires_grad_()
            maps = checkpoint(lambda x: tuple(backbone(x)), source, use_reentrant=reentrant)
        total(list(maps)).backward()
        return [parameter.grad.clone() for parameter in backbone.parameters()]

    plain = gradients(None)
    assert equal(gradients(False), plain) and equal(gradients(True), plain)


@check
def compiling_leaves_it_whole(folder: Path) -> None:
    backbone = Backbone("resnet18").eval()
    head = nn.Conv2d(512, 4, 1)

    def network(batch: torch.Tensor) -> torch.Tensor:
        return head(backbone(batch)[-1]).relu()

    # The eager backend: what is tested is that tracing goes around the library.
    compiled = torch.compile(network, backend="eager")
    batch = images()
    assert torch.equal(compiled(batch), network(batch))
    compiled(batch).sum().backward()
    assert backbone.conv1.weight.grad is not None


@check
def replaced_tensors_are_noticed(folder: Path) -> None:
    backbone = Backbone("resnet18")
    backbone.bn1._parameters["weight"] = nn.Parameter(torch.ones(64))
    refuses(lambda: backbone(images()), "weight of bn1", "replaced", "copy_")

    backbone = Backbone("resnet18")
    backbone.layer1._modules["0"] = nn.Identity()
    refuses(lambda: backbone(images()), "layer1.0", "replaced by a Identity")

    backbone = Backbone("resnet18")
    twice = {name: 2 * tensor for name, tensor in backbone.state_dict().items()}
    refuses(lambda: torch.func.functional_call(backbone, twice, (images(),)), "replaced")
    backbone(images())
