"""Writes a network as a `.pt2` file, which `pretrain`, `detect` and `classify` read.

    python -m spark_backbone.export timm:regnety_016 -o regnety.pt2

`torch.export` records the operators that the network's forward calls, with its weights. Needs no
library of spark_backbone, so that it runs with every torch from 2.9 on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._sources import (
    ExportError,
    Wishes,
    build,
    first_lines,
    parse_argument,
    split,
    user_line,
)
from ._weights import load_weights

EXAMPLES = """\
source:
  timm:NAME                  a network of timm, such as timm:regnety_016
  torchvision:NAME           one of torchvision, such as torchvision:efficientnet_b0
  package.module:function    a function or class of yours that returns a torch.nn.Module,
                             looked for from the current folder

examples:
  python -m spark_backbone.export timm:regnety_016 -o regnety.pt2 --drop-path 0.1
  python -m spark_backbone.export torchvision:efficientnet_b0 --pretrained
  python -m spark_backbone.export timm:resnet18 --arg layers=[1,1,1,1] --in-chans 4
  python -m spark_backbone.export nets.mine:Darknet --arg width=0.5 --weights darknet.pth

Train mode is the default, since only then the graph has drop-path, and batch norms that take the
statistics of the batch. The file is read back and run before it gets its name.
"""

FIRST_RELEASE = (2, 9)
# A step by which every grid of a backbone of stride 32 is whole.
STRIDE = 32


def check_release(release: str) -> None:
    """Refuses a torch before 2.9."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if numbers < FIRST_RELEASE:
        raise ExportError(
            f"torch {release} is installed, but the archive is that of torch 2.9 and newer "
            "(schema 8.14): pip install 'torch>=2.9', if need be in an environment of its own"
        )


# ---- The command line ----


def _size(text: str) -> tuple[int, int]:
    """`224` or `HxW`."""
    found = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a side, such as 224, nor HxW")
    return height, width


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1)")
    return rate


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m spark_backbone.export",
        description="Writes a network of PyTorch as a .pt2 file (torch.export).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("source", help="the network: see below")
    add("-o", "--output", type=Path, help="file to write; NAME.pt2 by default")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--size", type=_size, default=(224, 224), metavar="SIDE|HxW",
        help="pixels of the images that it is traced with (224); it runs on other sizes, too")
    add("--batch", type=_count, default=2, help="images that it is traced with (2)")
    add("--in-chans", type=_count, help="channels of the images (3)")
    add("--pretrained", action="store_true", help="weights of timm or torchvision")
    add("--weights", type=Path, metavar="FILE",
        help="state dict to load, .safetensors or .pth, whose names must be the network's; "
        "also hf:owner/name[@revision][/file]")
    add("--drop-path", type=_rate, metavar="RATE",
        help="of the last block: drop_path_rate, or torchvision's stochastic_depth_prob")
    add("--eval", action="store_true",
        help="trace in evaluation mode: norms keep their statistics, and nothing is dropped")
    add("--arg", action="append", default=[], metavar="KEY=VALUE",
        help="argument for the constructor, a Python literal; may be repeated")
    add("--features", action="store_true", help="timm's features_only=True: maps, and no head")
    return made


def wishes_of(options: argparse.Namespace) -> Wishes:
    """How the options want the network to be built."""
    arguments: dict[str, Any] = {}
    for text in options.arg:
        key, value = parse_argument(text)
        if key in arguments:
            raise ExportError(f"--arg sets {key} twice")
        arguments[key] = value
    if options.pretrained and options.weights:
        raise ExportError("--pretrained and --weights are two sources of weights: give one")
    return Wishes(
        options.pretrained, options.in_chans, options.drop_path, options.features, arguments
    )


def output_of(options: argparse.Namespace) -> Path:
    """The file to write, which may be written."""
    name = re.split(r"[:/]", split(options.source)[1])[-1]
    output: Path = options.output or Path(f"{name}.pt2")
    if output.suffix != ".pt2":
        raise ExportError(f"output is {str(output)!r}, but it must end in .pt2")
    if not output.parent.is_dir():
        raise ExportError(f"output is {str(output)!r}, but there is no folder {output.parent}")
    check_free(output, options.overwrite)
    return output


def check_free(output: Path, overwrite: bool) -> None:
    """Refuses to replace a file unasked, and a folder at all."""
    if output.is_dir():
        raise ExportError(f"output is {str(output)!r}, but that is a folder")
    if output.exists() and not overwrite:
        raise ExportError(f"{output} is there already: give another --output, or --overwrite")


# ---- Export ----


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's remarks while it traces, which repeat what the error says, at length."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def export(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of the model's forward."""
    failures = []
    # Strict mode analyses the Python code; the other, which follows what runs, takes more of it.
    for strict in (False, True):
        try:
            with quiet():
                return torch.export.export(model, (images,), strict=strict)
        except Exception as error:
            failures.append(error)
    said = [first_lines(failures[0], 3)]
    where = user_line(failures[0]) or user_line(failures[1])
    if where:
        said.append(f"at {where}")
    if type(failures[0]) is not type(failures[1]):
        said.append(f"in strict mode: {first_lines(failures[1], 2)}")
    shape = "×".join(map(str, images.shape))
    raise ExportError(
        f"torch.export cannot trace the network with {shape} images:\n" + "\n".join(said)
    ) from failures[0]


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors that a network puts out."""
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def verify(model: nn.Module, path: Path, images: Tensor) -> float:
    """Reads the file and runs it beside the model, with the same draws; the largest difference,
    relative to the largest value."""
    with quiet(), torch.no_grad():
        again = torch.export.load(path).module()
        torch.manual_seed(0)
        expected = tensors_of(model(images))
        torch.manual_seed(0)
        found = tensors_of(again(images))
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        raise ExportError("the file puts out other shapes than the network")
    if not found:
        raise ExportError("the network puts out no tensor")
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if not torch.equal(one, other):
            scale = other.abs().max().clamp(min=1e-12)
            worst = max(worst, float((one - other).abs().max() / scale))
    # The same operators on the same machine: at most another order of a sum.
    if not worst <= 1e-3:
        raise ExportError(
            f"the file computes something else than the network, by {worst:.1e} of the largest "
            "value: does its forward depend on anything besides the images?"
        )
    return worst


def schema_of(path: Path) -> str:
    """The archive's version of torch's schema."""
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("models/model.json"))
        version = json.loads(archive.read(name))["schema_version"]
    return f"{version['major']}.{version['minor']}"


def drop_path_draws(program: torch.export.ExportedProgram) -> int:
    """How many operators draw one number an image."""
    count = 0
    for node in program.graph.nodes:
        if "bernoulli" in str(node.target):
            shape = node.meta["val"].shape
            count += len(shape) > 1 and all(side == 1 for side in shape[1:])
    return count


def write(
    model: nn.Module, images: Tensor, output: Path, overwrite: bool
) -> tuple[torch.export.ExportedProgram, str, float]:
    """Exports to a folder beside `output`, verifies, and gives the file its name."""
    program = export(model, images)
    try:
        # Of the same name within: the archive has it inside, too.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
            path = Path(folder) / output.name
            with quiet():
                torch.export.save(program, path)
            difference = verify(model, path, images)
            schema = schema_of(path)
            check_free(output, overwrite)
            os.replace(path, output)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error}") from error
    return program, schema, difference


def run(options: argparse.Namespace) -> str:
    """Does what the options ask; what is to be said of it."""
    check_release(torch.__version__)
    output = output_of(options)
    if options.batch < 2 and not options.eval:
        raise ExportError(
            "batch is 1, but in train mode it must be 2 or more: batch norms need several values"
        )
    model = build(options.source, wishes_of(options)).cpu().train(not options.eval)
    if options.weights:
        load_weights(model, options.weights)
    torch.manual_seed(0)
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()] or [torch.float32]
    channels = options.in_chans or 3
    images = torch.randn(options.batch, channels, *options.size).to(dtypes[0])
    program, schema, difference = write(model, images, output, options.overwrite)
    return report(options, model, images, output, program, schema, difference)


def report(
    options: argparse.Namespace,
    model: nn.Module,
    images: Tensor,
    output: Path,
    program: torch.export.ExportedProgram,
    schema: str,
    difference: float,
) -> str:
    """What was written, and what to do next."""
    parameters = list(model.parameters())
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    draws = drop_path_draws(program)
    dtype = str(images.dtype).removeprefix("torch.")
    same = "the same output" if difference == 0 else f"the same output within {difference:.0e}"
    lines = [
        f"wrote {output}",
        f"  network     {options.source}, in {'evaluation' if options.eval else 'train'} mode",
        f"  parameters  {sum(p.numel() for p in parameters):,} in {len(parameters)} tensors",
        f"  input       {dtype} {'×'.join(map(str, images.shape))}",
        f"  written by  torch {torch.__version__}, schema {schema}",
        f"  operators   {len(calls)} calls of {len(set(calls))} operators",
        f"  drop-path   {draws} draws an image" if draws else "  drop-path   none",
        f"  read back   {same}",
    ]
    if any(side % STRIDE for side in options.size):
        size = "×".join(map(str, options.size))
        lines.append(
            f"note: {size} is no multiple of {STRIDE}: grids of coarser strides may not be whole"
        )
    if options.drop_path and not draws:
        lines.append(f"note: drop-path is {options.drop_path}, but nothing is dropped in the graph")
    return "\n".join([*lines, f"next: pretrain inspect {output}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = parser().parse_args(arguments)
    try:
        print(run(options))
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
