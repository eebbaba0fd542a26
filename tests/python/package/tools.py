"""PyTorch's tools that take a module's tensors as they lie, or trace it."""

from __future__ import annotations

import copy
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from spark_backbone import Backbone

from .harness import check, equal, images, refuses, total

MODELS = ("resnet18", "convnext_atto")


@check
def parameters_lie_as_pytorchs(folder: Path) -> None:
    for name in MODELS:
        backbone = Backbone(name).eval()
        total(backbone(images())).backward()
        for key, parameter in backbone.named_parameters():
            assert parameter.is_contiguous() and parameter.grad.is_contiguous(), key
        for other in (copy.deepcopy(backbone), Backbone(name).double(), Backbone(name)):
            assert all(tensor.is_contiguous() for tensor in other.state_dict().values())
        path = folder / f"{name}.state.safetensors"
        safetensors.torch.save_file(backbone.state_dict(), path)
        other = Backbone(name)
        other.load_state_dict(safetensors.torch.load_file(path))
        vector = nn.utils.parameters_to_vector(backbone.parameters())
        nn.utils.vector_to_parameters(vector, other.parameters())
        with torch.no_grad():
            batch = images(1)
            assert equal(other.eval()(batch), backbone(batch)), name
    theirs = timm.create_model("resnet18", features_only=True)
    backbone = Backbone("resnet18")
    theirs.load_state_dict(backbone.state_dict())
    flat = [nn.utils.parameters_to_vector(model.parameters()) for model in (backbone, theirs)]
    assert torch.equal(*flat)


@check
def any_memory_format_computes_the_same(folder: Path) -> None:
    for name in MODELS:
        for training in (False, True):
            backbone = Backbone(name, norm_eval=True).train(training)
            other = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
            batch = images()
            for layout in (torch.contiguous_format, torch.channels_last):
                maps = [model(batch.to(memory_format=layout)) for model in (backbone, other)]
                assert equal(*maps), name
            for model in (backbone, other):
                total(model(batch)).backward()
            for (key, one), two in zip(
                backbone.named_parameters(), other.parameters(), strict=True
            ):
                # Sums of float32 in another order.
                assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-6), (name, key)


@check
def optimizers_of_every_kind_train_it(folder: Path) -> None:
    for make in (
        lambda p: torch.optim.LBFGS(p, lr=1e-3, max_iter=3),
        lambda p: torch.optim.AdamW(p, lr=1e-4, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
        lambda p: torch.optim.Adafactor(p, lr=1e-4),
    ):
        backbone, batch = Backbone("resnet18").eval(), images()
        optimizer = make(backbone.parameters())

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = total(backbone(batch))
            loss.backward()
            return loss

        before = optimizer.step(closure)
        assert total(backbone(batch)) < before, type(optimizer).__name__


@check
def writes_past_autograd_are_seen(folder: Path) -> None:
    """Averages of weights write through `.data`, which counts no version."""
    backbone, batch = Backbone("resnet18").eval(), images()
    with torch.inference_mode():
        before = backbone(batch)
        for parameter in backbone.parameters():
            parameter.data.mul_(0.5)
        after = backbone(batch)
    fresh = Backbone("resnet18").eval()
    fresh.load_state_dict(backbone.state_dict())
    with torch.inference_mode():
        assert equal(after, fresh(batch)) and not equal(after, before)


@check
def checkpointing_fits_every_layer(folder: Path) -> None:
    for name in MODELS:
        backbone = Backbone(name, norm_eval=True)
        batch = images()

        def gradients(saved: str) -> list[torch.Tensor]:
            backbone.zero_grad()
            if saved == "plain":
                maps = backbone(batch)
            elif saved == "on the processor":
                with torch.autograd.graph.save_on_cpu():
                    maps = backbone(batch)
            else:
                maps = checkpoint(lambda x: tuple(backbone(x)), batch, use_reentrant=False)
            total(list(maps)).backward()
            return [parameter.grad.clone() for parameter in backbone.parameters()]

        plain = gradients("plain")
        for saved in ("on the processor", "not at all"):
            assert equal(gradients(saved), plain), (name, saved)


@check
def scripting_and_tracing_take_the_module(folder: Path) -> None:
    backbone, batch = Backbone("resnet18").eval(), images()
    with torch.no_grad():
        expected = backbone(batch)
        for made in (torch.jit.script(backbone), torch.jit.trace(backbone, batch)):
            assert equal(made(batch), expected)
        outer = torch.jit.script(nn.Sequential(backbone))
        outer.save(str(folder / "outer.pt"))
        assert equal(torch.jit.load(str(folder / "outer.pt"))(batch), expected)


@check
def what_traces_or_transforms_is_refused(folder: Path) -> None:
    backbone, batch = Backbone("resnet18").eval(), images()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return total(backbone(x))

    refuses(lambda: torch.export.export(backbone, (batch,)), "torch.export cannot", "timm")
    refuses(lambda: torch.fx.symbolic_trace(backbone), "torch.fx cannot trace", "timm")
    for transform in (torch.func.grad(loss), torch.func.vmap(lambda x: backbone(x[None])[0])):
        refuses(lambda: transform(batch), "inside a transform", "backward()")
    refuses(lambda: torch.func.jvp(loss, (batch,), (batch,)), "inside a transform")
    twice = {name: 2 * tensor for name, tensor in backbone.state_dict().items()}
    refuses(lambda: torch.func.functional_call(backbone, twice, (batch,)), "functional_call")
    backbone(batch)


@check
def timms_model_with_the_same_weights_is_exported_and_agrees(folder: Path) -> None:
    backbone, batch = Backbone("resnet18").eval(), images()
    path = folder / "exported.safetensors"
    backbone.save_weights(path, naming="timm")
    theirs = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    missing, _ = theirs.load_state_dict(safetensors.torch.load_file(path), strict=False)
    assert not missing, missing
    with torch.no_grad():
        ours = backbone(batch)
        exported = torch.export.export(theirs, (batch,)).module()(batch)
        compiled = torch.compile(theirs, backend="eager", fullgraph=True)(batch)
    for other in (exported, compiled):
        for our, their in zip(ours, other, strict=True):
            # Sums in another order, in float32.
            torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)
