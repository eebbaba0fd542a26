"""Loading libspark_backbone.so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ._release import LIBTORCH

NAME = "libspark_backbone.so"


def check_torch(found: str, built_against: str) -> None:
    """Refuses a torch whose C++ interface is not the one the library uses."""
    release = found.partition("+")[0]
    # libtorch keeps its C++ interface within 2.13.x and changes it after.
    if release.split(".")[:2] != built_against.split(".")[:2]:
        series = ".".join(built_against.split(".")[:2])
        raise ImportError(
            f"torch {found} is installed, but spark_backbone is built against torch "
            f"{built_against} and needs torch {series}.x: install that "
            f"(pip install 'torch=={series}.*')"
        )


def _is_registered() -> bool:
    """Whether this process has the class, whoever loaded the library."""
    import torch

    try:
        torch.classes.spark.Backbone  # noqa: B018  (looks it up)
    except RuntimeError:
        return False
    return True


def load(path: Path) -> Any:
    """Loads the library at `path`; its class.

    The library may be loaded once a process, so one that is there is used.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"spark_backbone needs torch {LIBTORCH}, which cannot be imported: {error}"
        ) from error
    check_torch(torch.__version__, LIBTORCH)
    if not _is_registered():
        if not path.is_file():
            raise ImportError(
                f"{path} is missing: install the wheel that `cargo xtask wheel` builds, "
                "which carries it"
            )
        try:
            torch.classes.load_library(str(path))
        except OSError as error:
            raise ImportError(f"{path} cannot be loaded: {error}") from error
    return torch.classes.spark.Backbone


BoundBackbone = load(Path(__file__).with_name(NAME))


def list_models() -> list[str]:
    """Names of the models that `Backbone` takes."""
    return list(BoundBackbone.models())
