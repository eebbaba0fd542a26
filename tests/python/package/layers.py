"""The modules inside: PyTorch's classes around the library's tensors, for the rules of
optimizers, initialisers and converters."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.ops import FrozenBatchNorm2d

from spark_backbone import Backbone

from .harness import check, images, refuses

CLASSES = (nn.Conv2d, nn.Linear, nn.LayerNorm, nn.BatchNorm2d)


def timms(name: str, **settings: object) -> nn.Module:
    return timm.create_model(name, features_only=True, **settings)


def described(model: nn.Module) -> list[tuple[str, set[str]]]:
    """Class and settings of every layer with parameters, in any order."""
    kinds = {
        module: next((kind for kind in CLASSES if isinstance(module, kind)), None)
        for module in model.modules()
    }
    return sorted(
        (kind.__name__, sorted(module.extra_repr().split(", ")))
        for module, kind in kinds.items()
        if kind is not None
    )


@check
def layers_are_timms(folder: Path) -> None:
    for name in ("resnet50", "resnext50_32x4d", "convnext_tiny"):
        for in_chans in (1, 3):
            ours, theirs = Backbone(name, in_chans=in_chans), timms(name, in_chans=in_chans)
            assert described(ours) == described(theirs), name
            if name.startswith("res"):
                # The same names in the same order: flattened, one is the other.
                names = [[n for n, _ in model.named_parameters()] for model in (ours, theirs)]
                assert names[0] == names[1], name


def detectron2s_groups(model: nn.Module) -> list[tuple[tuple[int, ...], float]]:
    """Shapes and weight decay by detectron2's get_default_optimizer_params with
    WEIGHT_DECAY 1, WEIGHT_DECAY_NORM 2 and WEIGHT_DECAY_BIAS 3."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)
    groups, seen = [], set()
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if not value.requires_grad or value in seen:
                continue
            seen.add(value)
            decay = 2.0 if isinstance(module, norms) else 1.0
            groups.append((tuple(value.shape), 3.0 if name == "bias" else decay))
    return groups


@check
def rules_for_norms_find_them(folder: Path) -> None:
    groups = detectron2s_groups(Backbone("resnet50"))
    assert groups == detectron2s_groups(timms("resnet50"))
    assert {decay for _, decay in groups} == {1.0, 2.0, 3.0}
    # timm has 1×1 convolutions where the official code has linear layers.
    flat = [
        sorted((shape[:2] if shape[2:] == (1, 1) else shape, decay) for shape, decay in groups)
        for groups in map(detectron2s_groups, (Backbone("convnext_atto"), timms("convnext_atto")))
    ]
    assert flat[0] == flat[1]
    frozen = detectron2s_groups(Backbone("resnet50", freeze_at=2))
    assert len(frozen) == len(groups) - 33  # The stem and three blocks with a shortcut.

    # Initialisers by class reach the library.
    backbone = Backbone("resnet18")
    backbone.apply(lambda m: nn.init.ones_(m.weight) if isinstance(m, nn.BatchNorm2d) else None)
    assert backbone.torchscript.named_parameters()["layer1.0.bn2.weight"].min() == 1


def statistics(model: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if "running" in name]


def switch_half(model: nn.Module) -> None:
    norms = [module for module in model.train().modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms[::2]:
        norm.eval()
    for norm, momentum in zip(norms[1::2], (None, 0.5, 1.0, 0.0), strict=False):
        norm.momentum = momentum


def train_stem_alone(model: nn.Module) -> None:
    model.eval()
    model.get_submodule("bn1").train()


def freeze_stages(model: nn.Module) -> None:
    model.train()
    for name in ("layer1", "layer2"):
        model.get_submodule(name).eval().requires_grad_(False)


def update(model: nn.Module) -> None:
    torch.manual_seed(3)
    torch.optim.swa_utils.update_bn([images(4) for _ in range(3)], model)


@check
def norms_run_as_their_modules_say(folder: Path) -> None:
    """What hosts do to single batch norms does to ours what it does to timm's."""
    for change in (switch_half, train_stem_alone, freeze_stages, update):
        ours, theirs = Backbone("resnet18"), timms("resnet18")
        theirs.load_state_dict(ours.state_dict())
        before = statistics(ours)
        copies = [ours]
        change(ours)
        change(theirs)
        if change is not update:
            copies += [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
        batch = images(4)
        theirs(batch)
        for model in copies:
            model(batch)
            for got, expected, was in zip(statistics(model), statistics(theirs), before, strict=True):
                # Sums of float32 in another order; unchanged is exactly that.
                assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6), change.__name__
                assert torch.equal(got, was) == torch.equal(expected, was), change.__name__


@check
def held_norms_show_it(folder: Path) -> None:
    backbone = Backbone("resnet18", freeze_at=2)

    def training() -> set[str]:
        return {name for name, m in backbone.named_modules() if m.training and hasattr(m, "eps")}

    every = {name for name, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    frozen = {name for name in every if name.startswith(("bn1", "layer1."))}
    assert (len(every), len(frozen)) == (20, 5)
    assert training() == every - frozen
    backbone.norm_eval = True
    assert training() == set()
    backbone.norm_eval = False
    assert training() == every - frozen
    backbone.eval()
    assert training() == set()
    assert backbone.train().freeze(0) is backbone and training() == every


@check
def what_cannot_reach_inside_is_refused(folder: Path) -> None:
    def sentence(action: Callable[[Backbone], object], *parts: str, **settings: object) -> None:
        backbone = Backbone("resnet18", **settings)
        refuses(lambda: action(backbone), *parts)
        # And nothing has happened to it.
        assert set(dict(backbone.named_parameters())) == names
        backbone(images())

    names = set(dict(Backbone("resnet18").named_parameters()))
    layer1 = "layer1 would never be called", "hook the backbone"
    sentence(lambda b: b.layer1.register_forward_hook(print), *layer1)
    sentence(lambda b: b.layer1.register_forward_pre_hook(print), *layer1)
    sentence(lambda b: b.layer1.register_full_backward_hook(print), *layer1)
    sentence(lambda b: b.conv1(images()), "conv1 runs inside the library")
    sentence(lambda b: setattr(b.bn1, "eps", 1e-3), "eps of bn1 is 1e-05", "0.001")
    sentence(
        lambda b: setattr(b.layer4.get_submodule("0.conv1"), "stride", (1, 1)),
        "stride of layer4.0.conv1 is (2, 2) and cannot become (1, 1)",
    )
    sentence(lambda b: delattr(b, "layer4"), "layer4 cannot be removed", "out_indices")
    sentence(lambda b: setattr(b, "bn1", nn.Identity()), "bn1 cannot be replaced by a Identity")
    frozen = FrozenBatchNorm2d(64)
    sentence(lambda b: b.add_module("bn1", frozen), "FrozenBatchNorm2d", "norm_eval=True")
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    sentence(lambda b: convert(nn.Sequential(b)), "bn1 cannot become a SyncBatchNorm", "norm_eval")
    pruned = "weight_orig of conv1", "pruning", "not supported"
    sentence(lambda b: prune.l1_unstructured(b.conv1, "weight", 0.3), *pruned)
    sentence(lambda b: parametrizations.weight_norm(b.conv1), "conv1 cannot be", "weight_norm")
    sentence(lambda b: setattr(b.bn1, "weight", nn.Parameter(torch.ones(64))), "copy_")
    # Drop-paths are no modules of their own.
    backbone = Backbone("resnet18", drop_path_rate=0.1)
    backbone.layer1.eval()
    refuses(lambda: backbone(images()), "layer1.0.training is False", "freeze(n)")
    backbone.freeze(2)(images())


@check
def held_norms_need_no_syncing(folder: Path) -> None:
    detector = nn.ModuleList([Backbone("resnet18", norm_eval=True), nn.BatchNorm2d(3)])
    nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    backbone = detector[0]
    assert isinstance(detector[1], nn.SyncBatchNorm) and isinstance(backbone.bn1, nn.BatchNorm2d)
    backbone(images())
    refuses(lambda: setattr(backbone, "norm_eval", False), "SyncBatchNorm")
    assert backbone.norm_eval and not backbone.bn1.training
