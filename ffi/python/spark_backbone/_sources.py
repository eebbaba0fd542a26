"""Networks by name: timm's, torchvision's, and what a function of the user's returns."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

FORMS = "timm:NAME, torchvision:NAME or package.module:function"


class ExportError(Exception):
    """What the user should know, in a sentence."""


@dataclass
class Wishes:
    """How the network is to be built."""

    pretrained: bool = False
    in_chans: int | None = None
    drop_path: float | None = None
    features: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    """For the constructor."""


def split(source: str) -> tuple[str, str]:
    """Library or module, and the name in it.

    Raises:
        ExportError: `source` has another form.
    """
    library, _, name = source.partition(":")
    if not library or not name:
        raise ExportError(f"source is {source!r}, but it must be {FORMS}{_near_sources(source)}")
    return library, name


def build(source: str, wishes: Wishes) -> nn.Module:
    """The network that `source` names.

    Raises:
        ExportError: There is none, or it cannot be built so.
    """
    library, name = split(source)
    if library == "timm":
        return _timm(name, wishes)
    if wishes.features:
        raise ExportError(f"--features is timm's features_only, but the source is {source!r}")
    if library == "torchvision":
        return _torchvision(name, wishes)
    return _users(library, name, wishes)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; the nearest are a, b`, or nothing where nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=4, cutoff=0.6)
    return f"; the nearest: {', '.join(found)}" if found else ""


def first_lines(error: BaseException, count: int) -> str:
    """The class and the first lines of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "\n".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *lines[1:count]])


def user_line(error: BaseException) -> str:
    """Where in code other than torch's an error came up, and that line; empty if nowhere."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(ours) and "importlib" not in frame.filename
    ]
    # `runpy`, which ran this command, is no user's either.
    frames = [frame for frame in frames if Path(frame.filename).name != "runpy.py"]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def parse_argument(text: str) -> tuple[str, Any]:
    """`key=value`, the value a Python literal or a plain word.

    Raises:
        ExportError: It is neither.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ExportError(f"--arg is {text!r}, but it must be key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        if re.fullmatch(r"[A-Za-z_][\w./-]*", value):
            return key, value
        raise ExportError(
            f"--arg {key} is {value!r}, but it must be a Python literal "
            "such as 2, 0.1, True, [1, 2] or 'text'"
        ) from None


# ---- The libraries ----


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ExportError(f"{sys.executable} has no {name}: pip install {name}") from None


def _near_sources(name: str) -> str:
    """Sources of the libraries that are installed whose names are near."""
    sources: dict[str, list[str]] = {}
    for library in ("timm", "torchvision"):
        try:
            for model in _names_of(_library(library)):
                sources.setdefault(model, []).append(f"{library}:{model}")
        except ExportError:
            continue
    found = [name] if name in sources else difflib.get_close_matches(name, sources, n=4)
    listed = ", ".join(source for model in found for source in sources[model])
    return f"; the nearest: {listed}" if listed else ""


def _names_of(library: Any) -> list[str]:
    listing = library if library.__name__ == "timm" else library.models
    return list(listing.list_models())


def _timm(name: str, wishes: Wishes) -> nn.Module:
    timm = _library("timm")
    known = "/" in name or ":" in name or timm.is_model(name)
    if not known:
        near = nearest(name, _names_of(timm))
        raise ExportError(f"timm {timm.__version__} has no model {name!r}{near}")
    options = dict(in_chans=wishes.in_chans, drop_path_rate=wishes.drop_path)
    options = {key: value for key, value in options.items() if value is not None}
    if wishes.features:
        options["features_only"] = True
    return _called(
        f"timm:{name}", timm.create_model, wishes, options, name, pretrained=wishes.pretrained
    )


def _torchvision(name: str, wishes: Wishes) -> nn.Module:
    torchvision = _library("torchvision")
    names = _names_of(torchvision)
    if name not in names:
        near = nearest(name, names)
        raise ExportError(f"torchvision {torchvision.__version__} has no model {name!r}{near}")
    if wishes.in_chans not in (None, 3):
        raise ExportError(
            f"in_chans is {wishes.in_chans}, but torchvision's networks take 3 channels"
        )
    rate = wishes.drop_path
    options = {} if rate is None else {"stochastic_depth_prob": rate}
    weights = "DEFAULT" if wishes.pretrained else None
    get_model = torchvision.models.get_model
    return _called(f"torchvision:{name}", get_model, wishes, options, name, weights=weights)


def _users(module_name: str, name: str, wishes: Wishes) -> nn.Module:
    """What `name` of a module returns, found from the current folder."""
    source = f"{module_name}:{name}"
    if wishes.pretrained:
        raise ExportError(f"--pretrained is for timm and torchvision; give {source} --weights FILE")
    function = _users_function(module_name, name)
    if isinstance(function, nn.Module):
        return function
    if not callable(function):
        raise ExportError(
            f"{source} is of type {type(function).__name__}, but it must be a function or class "
            "that returns a torch.nn.Module"
        )
    options = {}
    if wishes.drop_path is not None:
        if not _takes(function, "drop_path_rate"):
            raise ExportError(
                f"--drop-path is {wishes.drop_path}, but {source} takes no drop_path_rate; "
                "--arg sets arguments of other names"
            )
        options["drop_path_rate"] = wishes.drop_path
    if wishes.in_chans is not None and _takes(function, "in_chans"):
        options["in_chans"] = wishes.in_chans
    return _called(source, function, wishes, options)


def _users_function(module_name: str, name: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ExportError(f"{module_name} cannot be imported: {error}") from error
        near = nearest(module_name, [module.name for module in pkgutil.iter_modules()])
        raise ExportError(f"there is no module {error.name!r} in {folder}{near}") from None
    except Exception as error:
        raise ExportError(f"{module_name} cannot be imported: {_reason(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = [other for other, value in vars(found).items() if callable(value)]
            raise ExportError(f"{module_name} has no {name!r}{nearest(part, names)}")
        found = getattr(found, part)
    return found


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return parameter in parameters


def _reason(error: BaseException) -> str:
    where = user_line(error)
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text}" + (f" ({where})" if where else "")


# Names that `huggingface_hub`, `requests` and `urllib` give to an unreachable server, and words
# of their messages.
_OFFLINE = re.compile(
    r"ConnectionError|ConnectError|URLError|LocalEntryNotFound|OfflineMode|Timeout|MaxRetry|"
    r"ProxyError|NameResolution|HTTPError|HfHubHTTPError|client has been closed|resolve host",
)


def _called(
    source: str,
    function: Callable[..., Any],
    wishes: Wishes,
    options: dict[str, Any],
    *names: str,
    **fixed: Any,
) -> nn.Module:
    """`function` with the options that the user's arguments leave open."""
    twice = sorted(options.keys() & wishes.arguments.keys())
    if twice:
        raise ExportError(f"--arg sets {twice[0]}, which another option sets as well")
    try:
        model = function(*names, **fixed, **options, **wishes.arguments)
    except Exception as error:
        # Of a library's own code, which line it was says nothing to who calls it.
        said = f"{type(error).__name__}: {error}" if names else _reason(error)
        if wishes.pretrained and _OFFLINE.search(f"{_kinds(error)} {error}"):
            raise ExportError(
                f"the weights of {source} cannot be downloaded: {said.splitlines()[0]}; "
                "--weights FILE reads them from a file"
            ) from error
        if "stochastic_depth_prob" in options and "stochastic_depth_prob" in str(error):
            said = f"it takes no drop-path rate ({error})"
        raise ExportError(f"{source} cannot be built: {said}") from error
    if not isinstance(model, nn.Module):
        raise ExportError(
            f"{source} returns a value of type {type(model).__name__}, but it must return a "
            "torch.nn.Module"
        )
    return model


def _kinds(error: BaseException | None) -> str:
    """The classes of an error and of those that led to it."""
    kinds: list[str] = []
    while error is not None and len(kinds) < 10:
        kinds.append(type(error).__name__)
        error = error.__cause__ or error.__context__
    return " ".join(kinds)
