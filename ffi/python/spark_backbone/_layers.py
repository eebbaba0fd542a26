"""The modules inside a backbone: PyTorch's classes, which hold the library's tensors.

Optimizers' rules, initialisers and converters look for `nn.Conv2d`, `nn.BatchNorm2d`,
`nn.LayerNorm` and `nn.Linear`, and find the very layers here. What they compute runs
inside the library, so whatever would have to reach into that (hooks, other layers in
their place) is refused where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


class Sharing(nn.Module):
    """A module whose tensors, and modules, are the library's.

    PyTorch puts new tensors in place of a module's in some operations; here they
    must stay the same objects, or library and module would part.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Sharing:
        # The type of fn and of the result are nn.Module's own business.
        if recurse:
            for child in self.children():
                child._apply(fn)  # type: ignore[no-untyped-call]
        for name, tensor in self._own_tensors():
            with torch.no_grad():
                _replace_data(name, tensor, fn(tensor))
                if tensor.grad is not None:
                    _replace_data(name, tensor.grad, fn(tensor.grad))
        return self

    def _own_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for tensors in (self._parameters, self._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    yield name, tensor

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *others: Any
    ) -> None:
        # PyTorch leaves the mark in the state dict: taken out, so that loading it
        # again without `assign` works.
        if local_metadata.pop("assign_to_params_buffers", False):
            raise ValueError(
                "assign is True, but load_state_dict must copy into a backbone's tensors, "
                "which the library holds: leave assign=False"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        if not self._stays(name, module):
            super().add_module(name, module)

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._stays(name, value):
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not self._stays(name, None):
            super().__delattr__(name)

    def _stays(self, name: str, other: Any) -> bool:
        """Whether the library's layer called `name` stays although `other` was to take
        its place; refused unless it makes no difference."""
        own = self.__dict__.get("_modules", {}).get(name)
        if not isinstance(own, Inside) or other is own:
            return False
        if isinstance(other, nn.SyncBatchNorm) and isinstance(own, BatchNorm2d) and own.frozen:
            # It has no statistics of a batch to share.
            own.to_be_synced = True
            return True
        raise RuntimeError(no_other(name, other))


def no_other(name: str, other: Any) -> str:
    """Why `other` cannot take the place of the layer called `name`."""
    inside = "the layers of a backbone run inside the library"
    kind = type(other).__name__
    if isinstance(other, nn.SyncBatchNorm):
        return (
            f"{name} cannot become a SyncBatchNorm: {inside}, and its batch norms do not share "
            "statistics between processes. Have them use running statistics (norm_eval=True or "
            "freeze_at), or convert the rest of the model before the backbone is part of it"
        )
    if "FrozenBatchNorm" in kind:
        return (
            f"{name} cannot become a {kind}: {inside}. norm_eval=True has batch norms use their "
            "running statistics, and freeze_at freezes the first stages with all their norms"
        )
    what = "cannot be removed" if other is None else f"cannot be replaced by a {kind}"
    return (
        f"{name} {what}: {inside}. Change its tensors in place, choose maps by out_indices, or "
        "wrap the backbone as a whole"
    )


def _replace_data(name: str, tensor: Tensor, new: Tensor) -> None:
    """Gives `tensor` type, device and numbers of `new`, for all who hold it."""
    if new is tensor:
        return
    if not torch._has_compatible_shallow_copy_type(tensor, new):
        raise RuntimeError(
            f"{name} cannot become a {new.dtype} tensor on {new.device} in place, and the "
            "library, which shares it, cannot follow to another tensor"
        )
    tensor.data = new


class Inside(Sharing):
    """A module that holds tensors, or further modules, and computes nothing by itself:
    a stage or a block, and the base of the layers."""

    path = ""
    """Its name in the backbone."""
    sealed = False
    """Whether it is part of a backbone; before, its own constructor fills it."""

    def forward(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(
            f"{self.path} runs inside the library and cannot be called alone: call the backbone, "
            "which puts out the maps of its out_indices"
        )

    def _refuse_hook(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(
            f"a hook on {self.path} would never be called, since that runs inside the library: "
            "hook the backbone, which puts out the maps of its out_indices, or a parameter"
        )

    register_forward_hook = _refuse_hook
    register_forward_pre_hook = _refuse_hook
    register_full_backward_hook = _refuse_hook
    register_full_backward_pre_hook = _refuse_hook
    register_backward_hook = _refuse_hook

    # Pruning, weight norms and parametrizations compute a weight from tensors of
    # their own, and FSDP takes it away.

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        self._refuse_change(name)
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        self._refuse_change(name)
        super().register_buffer(name, tensor, persistent)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        if name not in self._modules:
            self._refuse_change(name)
        super().add_module(name, module)

    def __setattr__(self, name: str, value: Any) -> None:
        if self.sealed and self._is_setting(name) and value != getattr(self, name):
            raise RuntimeError(
                f"{name} of {self.path} is {getattr(self, name)} and cannot become {value}: the "
                "layer runs inside the library, which has been built so"
            )
        if isinstance(value, nn.Module) and name not in self._modules:
            self._refuse_change(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._parameters or name in self._buffers:
            self._refuse_change(name)
        super().__delattr__(name)

    def _is_setting(self, name: str) -> bool:
        """Whether the layer is built with it: what PyTorch calls a constant of a class."""
        return name in getattr(type(self), "__constants__", ()) and name in self.__dict__

    def _refuse_change(self, name: str) -> None:
        if self.sealed:
            raise RuntimeError(
                f"{name} of {self.path} cannot be added, replaced or removed: the layer runs inside "
                "the library, which computes with its own tensors. Change these in place (copy_); "
                "pruning and parametrizations (weight_norm, spectral_norm) of a backbone are not "
                "supported. With FSDP or fully_shard, leave it out of what is sharded "
                "(ignored_modules, ignored_params), or train with DistributedDataParallel"
            )


# By the names of PyTorch's classes, and with their bases: initialisers look for both by
# name.


class Conv2d(Inside, nn.Conv2d, _ConvNd):
    """A convolution inside the library."""


class Linear(Inside, nn.Linear):
    """A linear layer inside the library."""


class LayerNorm(Inside, nn.LayerNorm):
    """A layer norm over the channels of each position, inside the library."""


class BatchNorm2d(Inside, nn.BatchNorm2d, _BatchNorm):
    """A batch norm inside the library, which runs as `training` and `momentum` say."""

    frozen = False
    """Whether the backbone holds its statistics still, by norm_eval or freeze_at."""
    to_be_synced = False
    """Whether it was to become a SyncBatchNorm meanwhile."""

    def _is_setting(self, name: str) -> bool:
        return name != "momentum" and super()._is_setting(name)

    def hold(self, frozen: bool, training: bool) -> None:
        """Holds its statistics still, or has it run as the backbone, which trains or not."""
        self.frozen = frozen
        self.training = training and not frozen

    def check_hold(self, frozen: bool) -> None:
        """Refuses to let go of statistics that would have to be shared."""
        if self.to_be_synced and not frozen:
            raise RuntimeError(no_other(self.path, nn.SyncBatchNorm(1)))


CLASSES: dict[str, type[Inside]] = {
    layer.__name__: layer for layer in (Conv2d, Linear, LayerNorm, BatchNorm2d)
}


def layer(path: str, kind: str, **settings: Any) -> Inside:
    """The layer of this class of `torch.nn` with these arguments, whose tensors are still to be
    put in."""
    # Its own tensors take no memory and draw no random numbers.
    made = CLASSES[kind](**settings, device="meta")
    made.path = path
    return made
