"""Numbers: equal to Rust's bit for bit, to timm's within rounding."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor

from spark_backbone import Backbone

from .harness import check, equal, images, total

MODELS = ("resnet50", "convnext_tiny")

# Float32 through some fifty layers, summed in another order: about 1e-6 of the
# largest value is usual; what the project promises is 1e-4.
FLOAT32 = 1e-4
# Float64 rounds to 1.1e-16; fifty layers forward and back, with sums over a
# million terms, leave some 1e-12 of a tensor's largest gradient. Relative to the
# largest, since single elements cancel to nearly zero.
FLOAT64 = 1e-9


def weights(folder: Path, model: str) -> str:
    """The file that the Rust test wrote."""
    return str(folder / f"{model}.safetensors")


def timms(folder: Path, backbone: Backbone, model: str) -> torch.nn.Module:
    """timm's model with the weights of `backbone`."""
    path = folder / f"{model}.timm.pth"
    backbone.save_weights(path, naming="timm")
    theirs = timm.create_model(model, num_classes=10).to(backbone_dtype(backbone))
    lacking = theirs.load_state_dict(torch.load(path), strict=False)
    assert not lacking.unexpected_keys, lacking
    assert all(name.startswith(("fc.", "head.")) for name in lacking.missing_keys), lacking
    return theirs


def backbone_dtype(backbone: Backbone) -> torch.dtype:
    return next(backbone.parameters()).dtype


def pyramid(model: torch.nn.Module, batch: Tensor) -> list[Tensor]:
    """The four levels of a whole timm model."""
    return model.forward_intermediates(batch, intermediates_only=True)[-4:]


def difference(got: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest value expected."""
    assert got.shape == expected.shape
    scale = expected.abs().max().item()
    assert scale > 0
    return (got - expected).abs().max().item() / scale


@check
def features_equal_rusts_bit_for_bit(folder: Path) -> None:
    expected = safetensors.torch.load_file(folder / "features.safetensors")
    batch = expected.pop("images")
    compared = 0
    for model in MODELS:
        backbone = Backbone(model, weights(folder, model)).eval()
        config = json.dumps({"model": model, "training": False})
        bound = torch.classes.spark.Backbone(config, weights(folder, model))
        with torch.no_grad():
            ours, binds = backbone(batch), bound.forward(batch)
        rusts = [expected[f"{model}/{level}"] for level in range(4)]
        assert equal(ours, rusts), f"{model}: Python differs from Rust"
        assert equal(binds, rusts), f"{model}: TorchBind differs from Rust"
        compared += len(rusts)
    assert compared == len(expected) == 8


@check
def features_equal_timms(folder: Path) -> None:
    for model in MODELS:
        backbone = Backbone(model, weights(folder, model)).eval()
        theirs = timms(folder, backbone, model).eval()
        batch = images(2, 96)
        with torch.no_grad():
            for level, (got, expected) in enumerate(
                zip(backbone(batch), pyramid(theirs, batch), strict=True)
            ):
                off = difference(got, expected)
                assert off <= FLOAT32, f"{model}, level {level}: {off:.2e}"


@check
def gradients_equal_timms(folder: Path) -> None:
    for model in MODELS:
        backbone = Backbone(model, weights(folder, model), dtype=torch.float64)
        theirs = timms(folder, backbone, model).train()
        batch = images(2, 64, torch.float64)
        total(backbone(batch)).backward()
        total(pyramid(theirs, batch)).backward()

        # timm's gradients under our names: written as if they were weights.
        path = folder / f"{model}.gradients.pth"
        state = {name: buffer.double() for name, buffer in theirs.named_buffers()}
        for name, parameter in theirs.named_parameters():
            if not name.startswith(("fc.", "head.")):
                state[name] = parameter.grad
        torch.save(state, path)
        renamed = Backbone(model, path, dtype=torch.float64)

        worst = 0.0
        expected = dict(renamed.named_parameters())
        for name, parameter in backbone.named_parameters():
            off = difference(parameter.grad, expected[name].detach())
            assert off <= FLOAT64, f"{model}, {name}: {off:.2e}"
            worst = max(worst, off)
        print(f"    {model}: {len(expected)} gradients, at most {worst:.1e} off")
