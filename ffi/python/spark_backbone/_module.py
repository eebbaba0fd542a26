"""The backbone as a module of PyTorch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._foreign import Scriptable, check_images, untraced
from ._hooks import with_hooks_heard
from ._layers import BatchNorm2d, Inside, Sharing, layer, no_other
from ._library import BoundBackbone


class Level(NamedTuple):
    """One map that a backbone puts out."""

    stage: int
    """Number of the stage, 0 the finest."""
    channels: int
    """Channels of the map."""
    stride: int
    """Input pixels per position, along each side."""


class Backbone(Sharing):
    """A pyramid of feature maps from an image.

    Its parameters and buffers are the library's own tensors, under the names that
    timm (ResNet), the official code (ConvNeXt) or a `.pt2` file gives them, in modules
    of PyTorch's classes; an optimizer, `to()`, `state_dict()` and the rest treat it like any module.
    What no map depends on (stages behind the last of `out_indices`, ConvNeXt's last
    norm) is no parameter of it, and kept for `save_weights`.

    Args:
        name: timm's name of a model, one of `list_models()`, or a `.pt2` file that
            `torch.export.save` has written; behind it may stand the modules whose
            outputs are its stages: `"my.pt2:layer1,layer2,layer3,layer4"`. It may lie on
            the Hugging Face hub: `"hf:owner/name/my.pt2"`.
        weights: file to load: every format and naming of SparK, timm, torchvision,
            detectron2 and mmdet; `"hf:owner/name[@revision][/file]"` is one on the
            Hugging Face hub. Without it, parameters are those in the `.pt2` file;
            of other models they are drawn from PyTorch's generator.
        out_indices: stages to put out, ascending, 0 the finest; all by default.
        in_chans: channels of the image, by default 3, or what a `.pt2` file takes.
        drop_path_rate: of the last block; earlier ones rise to it. A `.pt2` file keeps
            its own rates with 0.
        freeze_at: how many stages to freeze, the stem included, see `freeze`.
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
        in_chans: int | None = None,
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
        self._hold_norms()

    @torch.compiler.disable(
        reason="a spark_backbone.Backbone runs inside a library, which PyTorch cannot trace: "
        "compile without fullgraph, so that tracing goes around it, and export timm's model with "
        "the weights that save_weights(path, naming='timm') writes"
    )
    def forward(self, images: Tensor) -> list[Tensor]:
        """The pyramid of `images`, finest first: one `[N, channels, ~H/stride,
        ~W/stride]` a level.

        Args:
            images: `[N, in_chans, H, W]`, already normalised, of the parameters'
                type and device (under autocast: any floating type).
        """
        check_images(images)
        self._check_shared()
        self._tell_norms()
        if self._drops_paths:
            self._check_blocks()
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

    def __prepare_scriptable__(self) -> nn.Module:
        # What torch.jit.script takes in this module's place.
        return Scriptable(self._handle)

    # ---- Training ----

    def train(self, mode: bool = True) -> Backbone:
        """Training or evaluation; `eval()` calls it, too."""
        super().train(mode)
        self._handle.train(mode)
        self._hold_norms()
        return self

    def freeze(self, freeze_at: int) -> Backbone:
        """Freezes the first stages: 0 none, 1 the stem, 2 the stem and the first
        stage, and so on. Parameters of these stages require no gradient, those of
        the others do; frozen batch norms and drop-paths run as in evaluation."""
        self._hold(self._handle.freeze, freeze_at, self.config["freeze_at"])
        return self

    @property
    def norm_eval(self) -> bool:
        """Whether batch norms use their running statistics in training, too."""
        return bool(self.config["norm_eval"])

    @norm_eval.setter
    def norm_eval(self, on: bool) -> None:
        self._hold(self._handle.set_norm_eval, on, self.norm_eval)

    def _hold(self, setting: Callable[[Any], None], value: Any, was: Any) -> None:
        """Changes a setting that holds norms still; one that they refuse is what it was."""
        setting(value)
        try:
            self._hold_norms()
        except RuntimeError:
            setting(was)
            raise

    def _hold_norms(self) -> None:
        """Shows at the batch norms which of them norm_eval and freeze_at hold still."""
        config = self.config
        self._freeze_at = config["freeze_at"]
        held = [
            (norm, config["norm_eval"] or index < self._freeze_at) for norm, index in self._norms
        ]
        for norm, frozen in held:
            norm.check_hold(frozen)
        for norm, frozen in held:
            norm.hold(frozen, self.training)

    def _tell_norms(self) -> None:
        """Has the library's batch norms run as the modules say."""
        for index, (norm, _) in enumerate(self._norms):
            state = (norm.training, norm.momentum)
            if self._told[index] != state:
                momentum = math.nan if norm.momentum is None else float(norm.momentum)
                with untraced():
                    self._handle.set_norm(norm.path, norm.training, momentum)
                self._told[index] = state

    def _check_blocks(self) -> None:
        """Refuses to drop paths other than the modules say."""
        frozen = self._freeze_at
        for path, (block, index) in self._blocks.items():
            if block.training != self.training and index >= frozen:
                raise RuntimeError(
                    f"{path}.training is {block.training} and that of the backbone is "
                    f"{self.training}, but all drop-paths (drop_path_rate is not 0) run as the "
                    "backbone does: freeze(n) has the first stages run as in evaluation"
                )

    # ---- Weight files ----

    def load_weights(self, path: str | os.PathLike[str], strict: bool = True) -> str:
        """Loads a file of any framework, or `hf:owner/name`; what matched, in words."""
        report: str = self._handle.load(os.fspath(path), strict)
        return report

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *others: Any
    ) -> None:
        # That of a whole encoder holds what this one keeps for files.
        for name, tensor in self._handle.named_kept().items():
            given = state_dict.get(prefix + name)
            if given is not None and given.shape == tensor.shape:
                with torch.no_grad():
                    tensor.copy_(given)
                del state_dict[prefix + name]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    def save_weights(self, path: str | os.PathLike[str], naming: str | None = None) -> None:
        """Writes the weights, whole or not at all.

        Args:
            path: ends in `.safetensors`, `.pth` or `.pkl` (detectron2's), or in `.pt2`
                for a network from such a file.
            naming: "timm", "official", "torchvision", "detectron2" or "mmdet"; the
                model's own by default, and the only one of a network from a `.pt2` file.
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
        # The network of a .pt2 file, which need not be there where this is read.
        state["_graph"] = self._handle.graph()
        state["_kept"] = dict(self._handle.named_kept())
        for made in ("_shared", "_placed", "_norms", "_told", "_blocks", "_drops_paths"):
            del state[made]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = json.loads(state.pop("_handle"))
        kept = state.pop("_kept")
        graph = state.pop("_graph", None)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        saved = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        # Its random parameters are written over: they must not cost the program
        # random numbers.
        with torch.random.fork_rng(devices=[]):
            settings = json.dumps({**config, "dtype": "float32", "device": "cpu"})
            if graph is None or graph.numel() == 0:
                handle = BoundBackbone(settings, "")
            else:
                handle = BoundBackbone.restore(settings, graph)
        for name, tensor in _tensors(handle):
            old = saved[name]
            tensor.data = old.detach().clone()
            tensor.requires_grad_(old.requires_grad)
        for name, tensor in handle.named_kept().items():
            tensor.data = kept[name]
        handle.train(self.training)
        self._adopt(handle)

    # ---- Sharing ----

    def _adopt(self, handle: Any) -> None:
        """Makes the layers and tensors of `handle` this module's, in modules nested as
        their dotted names say."""
        self._handle = handle
        # Where each module is, by path.
        self._placed: dict[str, tuple[nn.Module, str, Inside]] = {}
        self._norms: list[tuple[BatchNorm2d, float]] = []
        # What holds layers, with the index of its stage: stems, blocks, shortcuts.
        self._blocks: dict[str, tuple[nn.Module, float]] = {}
        for path, settings in json.loads(handle.modules()):
            stage_index = settings.pop("stage_index")
            if stage_index is None:
                # Of no stage: never frozen.
                stage_index = math.inf
            made = self._place(path, layer(path, settings.pop("type"), **settings))
            if isinstance(made, BatchNorm2d):
                self._norms.append((made, stage_index))
            block = path.rpartition(".")[0]
            self._blocks[block] = (self.get_submodule(block), stage_index)
        self._drops_paths = self.config["drop_path_rate"] > 0
        # What the library has been told of each.
        self._told: list[tuple[bool, float | None] | None] = [None] * len(self._norms)
        # Where each tensor is, to notice when somebody replaces it.
        self._shared: list[tuple[Sharing, str, Tensor]] = []
        for name, tensor in handle.named_parameters().items():
            # nn.Parameter(tensor) would be another tensor on the same memory,
            # without its gradient.
            tensor._is_param = True
            owner, key = self._owner_of(name)
            owner._parameters[key] = tensor
            self._shared.append((owner, key, tensor))
        for name, tensor in handle.named_buffers().items():
            owner, key = self._owner_of(name)
            owner._buffers[key] = tensor
            self._shared.append((owner, key, tensor))

    def _owner_of(self, name: str) -> tuple[Sharing, str]:
        """The module that holds the tensor called `name`, made if need be, and the
        tensor's name in it."""
        path, _, key = name.rpartition(".")
        return (self._place(path, Inside()) if path else self), key

    def _place(self, path: str, new: Inside) -> Inside:
        """The module called `path`; `new` if there is none."""
        if path in self._placed:
            return self._placed[path][2]
        above, _, name = path.rpartition(".")
        owner = self._place(above, Inside()) if above else self
        child = owner._modules.setdefault(name, new)
        if not isinstance(child, Inside):
            raise RuntimeError(no_other(path, child))
        child.path, child.sealed = path, True
        self._placed[path] = (owner, name, child)
        return child

    def _check_shared(self) -> None:
        """Refuses to compute with other numbers than the module shows."""
        for owner, key, tensor in self._shared:
            if owner._parameters.get(key, owner._buffers.get(key)) is not tensor:
                path = getattr(owner, "path", "the backbone")
                raise RuntimeError(
                    f"{key} of {path} was replaced, but the library computes with its own "
                    "tensors: copy into these (tensor.copy_(...)) instead; torch.func, with "
                    "functional_call, is not supported"
                )
        for path, (parent, name, module) in self._placed.items():
            if parent._modules.get(name) is not module:
                raise RuntimeError(no_other(path, parent._modules.get(name)))

    def extra_repr(self) -> str:
        shown = {"drop_path_rate": 0.0, "freeze_at": 0, "norm_eval": False, "in_chans": 3}
        config = self.config
        words = [repr(config["model"]), f"out_indices={self.out_indices}"]
        words += [f"{key}={config[key]}" for key, usual in shown.items() if config[key] != usual]
        return ", ".join(words)

    def __repr__(self) -> str:
        # Not the modules inside: they compute nothing.
        return f"{type(self).__name__}({self.extra_repr()})"


def _tensors(handle: Any) -> Iterator[tuple[str, Tensor]]:
    yield from handle.named_parameters().items()
    yield from handle.named_buffers().items()


def _dtype_name(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")


def _device_name(device: torch.device | str | int) -> str:
    return f"cuda:{device}" if isinstance(device, int) else str(device)
