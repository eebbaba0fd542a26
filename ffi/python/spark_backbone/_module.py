"""The backbone as a module of PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._hooks import with_hooks_heard
from ._library import BoundBackbone


class Level(NamedTuple):
    """One map that a backbone puts out."""

    stage: int
    """Number of the stage, 0 the finest."""
    channels: int
    """Channels of the map."""
    stride: int
    """Input pixels per position, along each side."""


class _Sharing(nn.Module):
    """A module whose tensors are the library's.

    PyTorch puts new tensors in place of a module's in some operations; here they
    must stay the same objects, or library and module would part.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Sharing:
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


class Backbone(_Sharing):
    """A pyramid of feature maps from an image.

    Its parameters and buffers are the library's own tensors, under the names that
    timm (ResNet) or the official code (ConvNeXt) gives them; an optimizer, `to()`,
    `state_dict()` and the rest treat it like any module.

    Args:
        name: timm's name of a model, one of `list_models()`.
        weights: file to load: every format and naming of SparK, timm, torchvision,
            detectron2 and mmdet. Without it, parameters are drawn from PyTorch's
            generator.
        out_indices: stages to put out, ascending, 0 the finest; all by default.
        in_chans: channels of the image.
        drop_path_rate: of the last block; earlier ones rise to it.
        freeze_at: how many parts to freeze, see `freeze`.
        norm_eval: batch norms use their running statistics in training, too.
        strict: refuse weights that do not fill the backbone.
        dtype: type of the parameters, float32 by default.
        device: where they lie, the CPU by default.

    Raises:
        RuntimeError: A setting out of range, or weights that cannot be loaded; the
            message names the operand, its value and the rule.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] | None = None,
        out_indices: Sequence[int] | None = None,
        *,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        freeze_at: int = 0,
        norm_eval: bool = False,
        strict: bool = True,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | int | None = None,
    ) -> None:
        super().__init__()
        config = {
            "model": name,
            "weights": None if weights is None else os.fspath(weights),
            "strict": strict,
            "out_indices": None if out_indices is None else list(out_indices),
            "in_chans": in_chans,
            "drop_path_rate": drop_path_rate,
            "freeze_at": freeze_at,
            "norm_eval": norm_eval,
            "dtype": _dtype_name(dtype or torch.float32),
            "device": _device_name(device if device is not None else "cpu"),
        }
        self._adopt(BoundBackbone(json.dumps(config), ""))

    def forward(self, images: Tensor) -> list[Tensor]:
        """The pyramid of `images`, finest first: one `[N, channels, ~H/stride,
        ~W/stride]` a level.

        Args:
            images: `[N, in_chans, H, W]`, already normalised, of the parameters'
                type and device (under autocast: any floating type).
        """
        self._check_shared()
        maps: list[Tensor] = with_hooks_heard(lambda: self._handle.forward(images))
        return maps

    # ---- Shape ----

    @property
    def levels(self) -> tuple[Level, ...]:
        """What `forward` puts out, finest first."""
        return tuple(map(Level, self.out_indices, self.channels, self.strides))

    @property
    def out_indices(self) -> tuple[int, ...]:
        """Stages that `forward` puts out."""
        return tuple(self._handle.stages())

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(self._handle.channels())

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per position of each map."""
        return tuple(self._handle.strides())

    @property
    def feature_info(self) -> list[dict[str, int]]:
        """The levels in timm's words."""
        return [
            {"index": level.stage, "num_chs": level.channels, "reduction": level.stride}
            for level in self.levels
        ]

    @property
    def config(self) -> dict[str, Any]:
        """The settings as they are now."""
        config: dict[str, Any] = json.loads(self._handle.config())
        return config

    @property
    def torchscript(self) -> Any:
        """The `torch.classes.spark.Backbone` behind this module, with the same
        tensors; a module that holds it can be scripted and saved."""
        return self._handle

    # ---- Training ----

    def train(self, mode: bool = True) -> Backbone:
        """Training or evaluation; `eval()` calls it, too."""
        super().train(mode)
        self._handle.train(mode)
        return self

    def freeze(self, freeze_at: int) -> Backbone:
        """Freezes the first parts: 0 none, 1 the stem, 2 the stem and the first
        stage, and so on. Parameters of these parts require no gradient, those of
        the others do; frozen batch norms and drop-paths run as in evaluation."""
        self._handle.freeze(freeze_at)
        return self

    @property
    def norm_eval(self) -> bool:
        """Whether batch norms use their running statistics in training, too."""
        return bool(self.config["norm_eval"])

    @norm_eval.setter
    def norm_eval(self, on: bool) -> None:
        self._handle.set_norm_eval(on)

    # ---- Weight files ----

    def load_weights(self, path: str | os.PathLike[str], strict: bool = True) -> str:
        """Loads a file of any framework; what matched, in words."""
        report: str = self._handle.load(os.fspath(path), strict)
        return report

    def save_weights(self, path: str | os.PathLike[str], naming: str | None = None) -> None:
        """Writes the weights, whole or not at all.

        Args:
            path: ends in `.safetensors`, `.pth` or `.pkl` (detectron2's).
            naming: "timm", "official", "torchvision", "detectron2" or "mmdet"; the
                model's own by default.
        """
        self._handle.save(os.fspath(path), naming or "")

    # ---- Copies ----

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        handle = self._handle.clone()
        for (_, old), (_, new) in zip(_tensors(self._handle), _tensors(handle), strict=True):
            if isinstance(old, nn.Parameter):
                new._is_param = True
            if old.grad is not None:
                new.grad = old.grad.detach().clone()
            # Whatever in this module refers to the old tensor will refer to the
            # new one.
            memo[id(old)] = new
        memo[id(self._handle)] = handle
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        # Not by setattr, for which nn.Module would have to be initialised.
        copy.__dict__.update(
            {name: deepcopy(value, memo) for name, value in self.__dict__.items()}
        )
        return copy

    def __getstate__(self) -> dict[str, Any]:
        # The tensors go as any module's, so that torch.load can map them to
        # another device.
        state = self.__dict__.copy()
        state["_handle"] = self._handle.config()
        del state["_shared"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = json.loads(state.pop("_handle"))
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        saved = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        # Its random parameters are written over: they must not cost the program
        # random numbers.
        with torch.random.fork_rng(devices=[]):
            handle = BoundBackbone(json.dumps({**config, "dtype": "float32", "device": "cpu"}), "")
        for name, tensor in _tensors(handle):
            old = saved[name]
            tensor.data = old.detach().clone()
            tensor.requires_grad_(old.requires_grad)
        handle.train(self.training)
        self._adopt(handle)

    # ---- Sharing ----

    def _adopt(self, handle: Any) -> None:
        """Makes the tensors of `handle` this module's, in modules nested as their
        dotted names say."""
        self._handle = handle
        # Where each tensor is registered, to notice when somebody replaces it.
        self._shared: list[tuple[dict[str, Any], str, Tensor]] = []
        for name, tensor in handle.named_parameters().items():
            # nn.Parameter(tensor) would be another tensor on the same memory,
            # without its gradient.
            tensor._is_param = True
            owner, key = self._owner_of(name)
            owner._parameters.pop(key, None)
            owner.register_parameter(key, tensor)
            self._shared.append((owner._parameters, key, tensor))
        for name, tensor in handle.named_buffers().items():
            owner, key = self._owner_of(name)
            owner._buffers.pop(key, None)
            owner.register_buffer(key, tensor)
            self._shared.append((owner._buffers, key, tensor))

    def _owner_of(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds the tensor called `name`, made if need be, and the
        tensor's name in it."""
        *path, key = name.split(".")
        owner: nn.Module = self
        for part in path:
            child = owner._modules.get(part)
            if child is None:
                child = _Sharing()
                owner.add_module(part, child)
            owner = child
        return owner, key

    def _check_shared(self) -> None:
        """Refuses to compute with other numbers than the module shows."""
        for tensors, key, tensor in self._shared:
            if tensors.get(key) is not tensor:
                raise RuntimeError(
                    f"a tensor called {key} of this backbone was replaced, but the library "
                    "computes with its own: copy into it (tensor.copy_(...)) instead"
                )

    def extra_repr(self) -> str:
        shown = {"drop_path_rate": 0.0, "freeze_at": 0, "norm_eval": False, "in_chans": 3}
        config = self.config
        words = [repr(config["model"]), f"out_indices={self.out_indices}"]
        words += [f"{key}={config[key]}" for key, usual in shown.items() if config[key] != usual]
        return ", ".join(words)

    def __repr__(self) -> str:
        # Not the modules inside: they only hold tensors.
        return f"{type(self).__name__}({self.extra_repr()})"


def _tensors(handle: Any) -> Iterator[tuple[str, Tensor]]:
    yield from handle.named_parameters().items()
    yield from handle.named_buffers().items()


def _dtype_name(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")


def _device_name(device: torch.device | str | int) -> str:
    return f"cuda:{device}" if isinstance(device, int) else str(device)
