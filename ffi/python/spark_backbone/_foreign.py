"""What of PyTorch's machinery cannot reach into the library, in words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

INSTEAD = (
    "torch.jit.script takes a module that holds backbone.torchscript, and "
    "save_weights(naming='timm') writes a file for timm's model, which can be traced"
)


def check_images(images: Any) -> None:
    """Refuses what stands for images while PyTorch traces or transforms a program."""
    if isinstance(images, Proxy) or torch.compiler.is_exporting():
        raise RuntimeError(
            "a spark_backbone.Backbone runs inside a library, which torch.export, torch.onnx and "
            f"torch.fx cannot trace: {INSTEAD}"
        )
    if isinstance(images, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(images):
        raise RuntimeError(
            "the images are inside a transform of torch.func (grad, vmap, jvp, ...), but these "
            "cannot look into the library that a spark_backbone.Backbone runs in: call the "
            "backbone outside of the transform, and use backward() for gradients"
        )


def replaced(owner: nn.Module, key: str, found: Any) -> str:
    """Why a backbone cannot run with `found` in place of its tensor `key` of `owner`."""
    name = f"{getattr(owner, 'path', type(owner).__name__)}.{key}"
    library = "but the library computes with its own tensors"
    if type(found).__name__ == "DTensor":
        return (
            f"{name} was replaced by a DTensor (fully_shard, tensor parallelism), {library}: "
            "train with DistributedDataParallel, or leave the backbone out of what is sharded"
        )
    if getattr(owner, "_is_fsdp_managed_module", False):
        return (
            f"{name} was replaced by FullyShardedDataParallel, {library}: train with "
            "DistributedDataParallel, or name the backbone in FSDP's ignored_modules"
        )
    return (
        f"{name} of this backbone was replaced, {library}: copy into that (tensor.copy_(...)) "
        "instead of assigning another, and call the backbone as it is instead of through "
        "torch.func.functional_call"
    )
