"""The programs `pretrain`, `detect` and `classify`, as commands of this environment.

Outside the package `spark_backbone`, whose import loads torch, which takes seconds.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def _installed(package: str) -> Path:
    """The folder of a package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{sys.executable} has no package {package}: pip install {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _torch_release() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        import torch

        return str(torch.__version__)


def _program(name: str) -> Path:
    """The program for the torch that is installed, as the package knows it."""
    package = _installed("spark_backbone")
    release = runpy.run_path(str(package / "_release.py"))
    rule = runpy.run_path(str(package / "_carried.py"))
    series = rule["series_of"](_torch_release(), release["LIBTORCH"])
    program: Path = package / rule["folder_name"](series) / name
    if not program.is_file():
        raise ImportError(
            f"{program} is missing: install a wheel built without `--no-programs`, which carries it"
        )
    return program


def _run(name: str) -> None:
    """Becomes the program `name`."""
    try:
        torch = _installed("torch")
        program = _program(name)
    except ImportError as error:
        sys.exit(f"{name}: {error}")
    if not (program.parent / "../../torch/lib").exists():
        # The program looks for torch beside the package; this one lies elsewhere.
        paths = [str(torch / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    # Installers give all files of a package the same rights.
    if not os.access(program, os.X_OK):
        try:
            program.chmod(program.stat().st_mode | 0o111)
        except OSError as error:
            sys.exit(f"{name}: {program} cannot be made executable: {error}")
    os.execv(program, [name, *sys.argv[1:]])


def pretrain() -> None:
    """SparK pretraining."""
    _run("pretrain")


def detect() -> None:
    """Mask R-CNN."""
    _run("detect")


def classify() -> None:
    """Classification."""
    _run("classify")
