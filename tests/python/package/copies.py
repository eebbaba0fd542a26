"""Copies: state_dict, deepcopy, pickle, weight files, TorchScript."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import torch

from spark_backbone import Backbone

from .harness import check, equal, images, refuses, total


def small() -> Backbone:
    """With statistics and weights that initialisation does not hide."""
    backbone = Backbone("resnet18")
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        backbone(images(4))
    return backbone


@torch.no_grad()
def features(backbone: torch.nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(5)
    return copy_of_mode(backbone, images())


def copy_of_mode(backbone: torch.nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """Features in evaluation; the mode is as before."""
    training = backbone.training
    maps = backbone.eval()(batch)
    backbone.train(training)
    return maps


@check
def state_dict_round_trip(folder: Path) -> None:
    source, target = small(), Backbone("resnet18")
    state = source.state_dict()
    assert "layer1.0.conv1.weight" in state and "bn1.running_mean" in state
    assert not equal(features(source), features(target))
    identities = {name: id(tensor) for name, tensor in target.named_parameters()}
    target.load_state_dict(state)
    assert equal(features(source), features(target))
    assert identities == {name: id(tensor) for name, tensor in target.named_parameters()}

    # Inside another module, as in a detector.
    outer = torch.nn.ModuleDict({"backbone": Backbone("resnet18")})
    outer.load_state_dict({f"backbone.{name}": tensor for name, tensor in state.items()})
    assert equal(features(source), features(outer["backbone"]))

    refuses(
        lambda: target.load_state_dict(state, assign=True), "assign", "copy", kind=ValueError
    )
    del state["conv1.weight"]
    refuses(lambda: target.load_state_dict(state), "conv1.weight")


@check
def deepcopy_is_independent(folder: Path) -> None:
    source = small().freeze(2)
    source.layer4.requires_grad_(False)
    total(source(images())).backward()
    source.note = ["kept"]
    twin = copy.deepcopy(source)
    assert twin.note == ["kept"] and twin.note is not source.note
    assert equal(features(source), features(twin))
    pairs = list(zip(source.named_parameters(), twin.named_parameters(), strict=True))
    for (name, old), (_, new) in pairs:
        assert old is not new and old.data_ptr() != new.data_ptr(), name
        assert isinstance(new, torch.nn.Parameter), name
        assert old.requires_grad == new.requires_grad, name
        assert (old.grad is None) == (new.grad is None), name
        assert old.grad is None or torch.equal(old.grad, new.grad), name
    held = twin.torchscript.named_parameters()
    assert all(held[name] is tensor for name, tensor in twin.named_parameters())

    before = features(source)
    with torch.no_grad():
        twin.conv1.weight.mul_(2)
    assert equal(features(source), before) and not equal(features(twin), before)
    twin.double()
    assert source.config["dtype"] == "float32" and twin.config["dtype"] == "float64"

    # The averaged model of PyTorch's optimizers copies deeply, too.
    average = torch.optim.swa_utils.AveragedModel(source)
    assert equal(features(average.module), before)


@check
def pickles_keep_everything(folder: Path) -> None:
    source = small().freeze(1).eval()
    source.norm_eval = True
    source.double()
    with torch.no_grad():
        before = source(images(dtype=torch.float64))
    torch.manual_seed(0)
    with torch.no_grad():
        before = source(images(dtype=torch.float64))
    for what, restore in {
        "pickle": lambda: pickle.loads(pickle.dumps(source)),
        "torch.save": lambda: saved_and_loaded(source),
    }.items():
        torch.manual_seed(0)
        drawn = torch.get_rng_state()
        restored = restore()
        assert torch.equal(torch.get_rng_state(), drawn), f"{what} drew random numbers"
        assert restored.config == source.config, what
        assert not restored.training
        with torch.no_grad():
            assert equal(restored(images(dtype=torch.float64)), before), what
        held = restored.torchscript.named_parameters()
        for name, tensor in restored.named_parameters():
            assert held[name] is tensor, f"{what}: {name} is not shared"
            assert tensor.requires_grad == source.get_parameter(name).requires_grad, name
            assert isinstance(tensor, torch.nn.Parameter), name


def saved_and_loaded(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False, map_location="cpu")


@check
def weight_files_round_trip(folder: Path) -> None:
    source = small()
    for name, naming in {
        "own.safetensors": None,
        "timm.pth": "timm",
        "torchvision.pth": "torchvision",
        "mmdet.pth": "mmdet",
        "detectron2.pkl": "detectron2",
    }.items():
        path = folder / name
        source.save_weights(path, naming)
        assert equal(features(Backbone("resnet18", path)), features(source)), name
        target = Backbone("resnet18")
        report = target.load_weights(path)
        assert isinstance(report, str) and report, name
        assert equal(features(target), features(source)), name


class Pyramid(torch.nn.Module):
    """What a user scripts: a module around the TorchBind object."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.torchscript

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        return self.backbone.forward(batch)


@check
def torchscript_saves_and_loads(folder: Path) -> None:
    backbone = small().eval()
    scripted = torch.jit.script(Pyramid(backbone))
    batch = images()
    with torch.no_grad():
        expected = backbone(batch)
        assert equal(scripted(batch), expected)
        # For a C++ program, which compares with these numbers.
        path = folder / "scripted.pt"
        scripted.save(str(path))
        torch.jit.script(Numbers([batch, *expected])).save(str(folder / "scripted_numbers.pt"))
        loaded = torch.jit.load(str(path))
        assert equal(loaded(batch), expected)
        twin = copy.deepcopy(loaded)
        assert equal(twin(batch), expected)
        # Loaded weights are the file's own.
        backbone.conv1.weight.zero_()
        assert equal(loaded(batch), expected) and not equal(scripted(batch), expected)


class Numbers(torch.nn.Module):
    """Tensors in a file that C++ reads with `torch::jit::load`: the input, then
    the levels."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self) -> list[torch.Tensor]:
        return self.tensors
