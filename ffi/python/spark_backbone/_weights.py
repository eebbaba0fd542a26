"""Weights for a network that is exported: a file, here or on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ._sources import ExportError, first_lines, nearest

_ON_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")


def local(path: Path) -> Path:
    """`path`, or where what it names on the Hugging Face hub lies once it is fetched."""
    name = str(path)
    if not name.startswith("hf:"):
        return path
    match = _ON_HUB.fullmatch(name)
    if match is None:
        raise ExportError(f"weights is {name!r}, but it must be hf:owner/name[@revision][/file]")
    repo, revision, file = match.groups()
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo, file or "model.safetensors", revision=revision))
    except ImportError as error:
        raise ExportError(f"{name}: {error}: pip install huggingface_hub") from error
    except Exception as error:
        raise ExportError(f"{name} cannot be fetched: {first_lines(error, 2)}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name."""
    path = local(path)
    if not path.is_file():
        raise ExportError(f"weights is {str(path)!r}, but there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise ExportError(f"{path}: {error}: pip install safetensors") from error
    except Exception as error:
        raise ExportError(
            f"{path} is no state dict: {first_lines(error, 2)}; "
            "write one by torch.save(model.state_dict(), path)"
        ) from error
    # Checkpoints of training programs hold the state dict among other things.
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ExportError(f"{path} is no state dict: it must hold tensors by name")
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a file whose names and shapes are the model's, all of them."""
    state, own = read_state(path), model.state_dict()

    def listed(names: list[str]) -> str:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more

    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    problems = []
    if missing:
        problems.append(f"it lacks {listed(missing)}")
    if unknown:
        near = nearest(unknown[0], own) if not missing else ""
        problems.append(f"the network has no {listed(unknown)}{near}")
    problems += [
        f"{name} is {list(tensor.shape)}, but the network's is {list(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ][:3]
    if problems:
        raise ExportError(f"{path} does not fit the network: {'; '.join(problems)}")
    model.load_state_dict(state, strict=True)
