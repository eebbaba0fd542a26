"""Loading libspark_backbone.so."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from ._carried import folder_name, series_of
from ._release import LIBTORCH

NAME = "libspark_backbone.so"


# What stands before the release in the library's file.
_MARK = b"spark_backbone for libtorch "


def _check_release(path: Path, torch: str) -> None:
    """Refuses a library for another torch before it is loaded, which could end the process."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_MARK)
        if start < 0:
            return
        start += len(_MARK)
        release = content[start : content.find(b"\0", start)].decode()
    series_of(torch, {release.rpartition(".")[0]: release})


def _is_registered() -> bool:
    """Whether this process has the class, whoever loaded the library."""
    import torch

    try:
        torch.classes.spark.Backbone  # noqa: B018  (looks it up)
    except RuntimeError:
        return False
    return True


def load(path: Path | None = None) -> Any:
    """Loads the library at `path`, or the one for the torch that is installed; its class.

    The library may be loaded once a process, so one that is there is used.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"spark_backbone needs torch {' or '.join(LIBTORCH)}, which cannot be imported: {error}"
        ) from error
    if path is None:
        series = series_of(torch.__version__, LIBTORCH)
        path = Path(__file__).with_name(folder_name(series)) / NAME
    if not _is_registered():
        if not path.is_file():
            raise ImportError(
                f"{path} is missing: install the wheel that `cargo xtask wheel` builds, "
                "which carries it"
            )
        try:
            _check_release(path, torch.__version__)
            torch.classes.load_library(str(path))
        except (OSError, ValueError) as error:
            raise ImportError(f"{path} cannot be loaded: {error}") from error
    return torch.classes.spark.Backbone


BoundBackbone = load()


def list_models() -> list[str]:
    """Names of the models that `Backbone` takes, besides `.pt2` files."""
    return list(BoundBackbone.models())
