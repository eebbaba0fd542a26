"""Convolutional backbones pretrained by SparK, as PyTorch modules.

    import spark_backbone

    backbone = spark_backbone.Backbone("resnet50", "r50.safetensors", out_indices=(1, 2, 3))
    maps = backbone(images)

`spark_backbone.torchvision`, `spark_backbone.detectron2` and
`spark_backbone.mmdet` fit it into these frameworks.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._release import LIBTORCH, VERSION


def _is_export() -> bool:
    """Whether Python imports this on its way to `python -m spark_backbone.export`.

    The command needs no library, and takes torches for which the wheel carries none.
    """
    return sys.argv[:1] == ["-m"] and any(
        argument.endswith("spark_backbone.export") for argument in sys.orig_argv
    )


if TYPE_CHECKING or not _is_export():
    from ._library import list_models
    from ._module import Backbone, Level
else:

    def __getattr__(name: str) -> Any:
        """Loads the library for networks that are exported and ask for it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "._library" if name == "list_models" else "._module"
        return getattr(importlib.import_module(home, __name__), name)


__all__ = ["Backbone", "Level", "LIBTORCH", "__version__", "config_file", "list_models"]

__version__ = VERSION


def config_file(name: str) -> str:
    """Path of a ready configuration, such as ``"mmdet/mask_rcnn_resnet50_fpn.py"``."""
    folder = Path(__file__).with_name("configs")
    path = folder / name
    if not path.is_file():
        known = sorted(f"{file.parent.name}/{file.name}" for file in folder.glob("*/*.*"))
        raise ValueError(f"config is {name!r}, but it must be one of {', '.join(known)}")
    return str(path)


def _register_where_imported() -> None:
    """Registers with each framework that the program has imported already.

    Importing a framework takes seconds, so one that is merely installed is left
    alone: importing `spark_backbone.detectron2` or `spark_backbone.mmdet`
    registers with it.
    """
    for framework, registry in (
        ("detectron2", "detectron2.modeling"),
        ("mmdet", "mmengine.registry"),
    ):
        if registry in sys.modules:
            importlib.import_module(f"{__name__}.{framework}")


_register_where_imported()
