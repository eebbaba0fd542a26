"""PyTorch's machinery that traces, transforms and shards programs, none of which can reach into
the library: what works around it, and what does not in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx import Proxy


class Scriptable(nn.Module):
    """A backbone as TorchScript takes it: modules that hold one can be scripted and saved."""

    def __init__(self, handle: Any) -> None:
        super().__init__()
        self.backbone = handle

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone.forward(images)  # type: ignore[no-any-return]


@contextmanager
def untraced() -> Iterator[None]:
    """Keeps torch.jit.trace from recording calls that are no part of the computation."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


def check_images(images: Any) -> None:
    """Refuses what stands for images while PyTorch traces or transforms a program."""
    if isinstance(images, Proxy) or torch.compiler.is_exporting():
        raise RuntimeError(
            "a spark_backbone.Backbone runs inside a library, which torch.export, torch.onnx and "
            "torch.fx cannot trace: use torch.jit, or write the weights by "
            "save_weights(path, naming='timm') and trace timm's model with them"
        )
    if not isinstance(images, Tensor):
        return
    dual = forward_ad._current_level >= 0 and forward_ad.unpack_dual(images).tangent is not None
    if dual or torch._C._functorch.is_functorch_wrapped_tensor(images):
        raise RuntimeError(
            "the images are inside a transform (torch.func's grad, vmap, jvp and the like, or "
            "forward-mode gradients), which cannot look into the library that a "
            "spark_backbone.Backbone runs in: call the backbone outside of it, and use backward() "
            "for gradients"
        )
