"""What PyTorch makes of the networks of a list, for comparison with what runs their `.pt2` files.

    graph_reference.py LIST.json FOLDER [--only NAME,NAME] [--timeout SECONDS] [--again]

LIST.json holds `{"family", "source", "name"?, "args"?, "part"?, "stages"?, "whole"?,
"tolerance"?, "double"?}` an entry: `source` is `timm:NAME`, `torchvision:NAME` or `nets:NAME`
(graph_nets); `args` go to its constructor; `part` is the module of it that is taken, such as
`features`; `stages` are the modules whose outputs are the stages, for networks that do not put them
out; `whole` asks for a timm classifier, not `features_only`; `tolerance` is that of networks that
compute some of it in float32, whatever they are given, or are very deep; and `double` has such a
network compute in float64 throughout, where one element that rounding moves over a threshold would
hide what else differs.

Of each network, in float64 and train mode, without drop-path and dropout, FOLDER gets NAME.pt2
(exported at 2×3×192×256) and NAME.safetensors:

| tensor | what |
|---|---|
| `input` | images of another size and number |
| `active` | `[N, rows, columns]`, 1 where a patch of 32×32 pixels is visible |
| `grid.I` | stage I `[N, C, H, W]` of the whole images |
| `gridgrad.NAME` | gradients of the loss of these |
| `gridbuffer.NAME` | running statistics after that forward |
| `masked.I`, `grad.NAME`, `buffer.NAME` | the same on visible positions, 0 at masked ones |

The loss is the sum over stages of `stage * cos(arange(stage.numel())).reshape(stage.shape)`.
Gradients of more than 16384 values are thinned: every k-th of the flattened tensor, k the least
that leaves at most 16384. The metadata has a JSON object `about`.

FOLDER/summary.json says of each network how it went: `ok`; `whole grid` (no reference on visible
positions, and why); `not exported`; `failed`; `slow`. A network that is there is left as it is,
unless `--again` or `--only` asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import multiprocessing
import re
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graph_nets import NETS, REFUSED
from graph_visible import Refused, VisiblePositions, tensors_in

EXPORTED = (2, 3, 192, 256)
RUN = (3, 3, 96, 160)
PATCH = 32
VISIBLE = 0.4
STRIDES = (4, 8, 16, 32)
MOST_VALUES = 16384
# Of what a mask of all patches may differ from the model's own forward, relative to the largest
# value of a stage: norms sum in another order, and networks of fifty layers amplify it.
TOLERANCE = 1e-9


class NotExported(Exception):
    """`torch.export` refuses the network."""


# ---- Building ----


def timm_model(name: str, args: dict[str, Any], whole: bool) -> nn.Module:
    """A classifier, or the pyramid of strides 4 to 32 where timm has one."""
    import timm

    if whole:
        return timm.create_model(name, pretrained=False, **args)
    if "out_indices" not in args:
        info = timm.create_model(name, pretrained=False, features_only=True, **args).feature_info
        strides = zip(info.out_indices, info.reduction(), strict=True)
        args = args | {"out_indices": [index for index, stride in strides if stride in STRIDES]}
    return timm.create_model(name, pretrained=False, features_only=True, **args)


def build(entry: dict[str, Any]) -> nn.Module:
    library, _, name = entry["source"].partition(":")
    args = entry.get("args", {})
    if library == "timm":
        return timm_model(name, args, entry.get("whole", False))
    if library == "torchvision":
        import torchvision

        model = torchvision.models.get_model(name, weights=None, **args)
        return model.get_submodule(entry.get("part", ""))
    return (NETS | REFUSED)[name](**args)


def without_chance(model: nn.Module) -> None:
    """Turns off drop-path and dropout, and moves vectors (gammas of 0, tiny scales of layers) off
    what they start from."""
    for module in model.modules():
        for rate in ("drop_prob", "drop_rate", "drop_path_rate"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
        if "drop" in type(module).__name__.lower() or type(module).__name__ == "StochasticDepth":
            if isinstance(getattr(module, "p", None), float):
                module.p = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() == max(parameter.shape, default=1):
                parameter.add_(0.1 * torch.rand_like(parameter))


def name_of(entry: dict[str, Any]) -> str:
    return entry.get("name") or re.sub(r"\W+", "_", entry["source"].partition(":")[2])


# ---- Running ----


def stages_of(model: nn.Module, names: list[str], images: Tensor) -> list[Tensor]:
    """The stages, `[N, C, H, W]`: the maps that the model puts out, or the outputs of its modules
    `names`. A model without maps: all that it puts out."""
    found: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update({name: output})
        )
        for name in names
    ]
    outputs = model(images)
    for hook in hooks:
        hook.remove()
    if names:
        # Afterwards modules may write to it in place, which the stage then is.
        outputs = [found[name] for name in names]
    outputs = list(tensors_in(outputs))
    outputs = [output for output in outputs if output.dim() == 4] or outputs
    grids = {(images.shape[2] >> k, images.shape[3] >> k) for k in range(7)}
    return [
        stage.permute(0, 3, 1, 2) if tuple(stage.shape[1:3]) in grids else stage
        for stage in outputs
    ]


def loss_of(stages: list[Tensor]) -> Tensor:
    weights = [torch.cos(torch.arange(stage.numel(), dtype=stage.dtype)) for stage in stages]
    return sum(
        (
            (stage * weight.view(stage.shape)).sum()
            for stage, weight in zip(stages, weights, strict=True)
        ),
        start=torch.zeros(()),
    )


def thinned(gradient: Tensor) -> Tensor:
    """At most `MOST_VALUES` values."""
    step = -(-gradient.numel() // MOST_VALUES)
    return gradient.flatten()[::step] if step > 1 else gradient


def trained(
    model: nn.Module, names: list[str], images: Tensor, mode: VisiblePositions | None
) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Stages of a forward in train mode, gradients of their loss, and buffers after it."""
    model = copy.deepcopy(model)
    if mode is None:
        stages = stages_of(model, names, images)
    else:
        with mode:
            stages = stages_of(model, names, images)
        for stage in stages:
            if not mode.axes(stage):
                raise Refused(f"a stage of shape {list(stage.shape)}, which is no grid")
        stages = [mode.filled(stage) for stage in stages]
    loss_of(stages).backward()
    gradients = {
        name: thinned(parameter.grad)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.grad is not None
    }
    kept = model.state_dict()
    buffers = {name: value for name, value in model.named_buffers() if name in kept}
    return [stage.detach() for stage in stages], gradients, buffers


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest, relative to the largest value of its stage."""
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True)
    )


def check_visible(
    model: nn.Module,
    names: list[str],
    images: Tensor,
    grid: list[Tensor],
    active: Tensor,
    masked: list[Tensor],
    tolerance: float,
) -> float:
    """Holds the rules of visible positions against the model: with all patches visible they
    compute what it does, and nothing depends on what stands at masked positions."""

    def forward(mode: VisiblePositions) -> list[Tensor]:
        copied = copy.deepcopy(model)
        with torch.no_grad(), mode:
            found = stages_of(copied, names, images)
        return [mode.filled(stage) for stage in found]

    error = difference(forward(VisiblePositions(torch.ones_like(active))), grid)
    if not error <= tolerance:
        raise AssertionError(f"all patches visible: off by {error:.1e}")
    leak = difference(forward(VisiblePositions(active, garbage=17.0)), masked)
    if not leak <= tolerance:
        raise AssertionError(f"masked positions are read: off by {leak:.1e}")
    return error


def visible_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """The same number of visible patches in every image."""
    rows, columns = images.shape[2] // PATCH, images.shape[3] // PATCH
    count = round(VISIBLE * rows * columns)
    order = torch.rand(len(images), rows * columns, generator=generator).argsort(1)
    return (order.argsort(1) < count).view(-1, rows, columns)


# ---- One network ----


def export(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    try:
        # Of a failure torch prints the whole graph.
        with contextlib.redirect_stderr(io.StringIO()):
            program = torch.export.export(model, (torch.zeros(shape),))
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise NotExported(f"{type(error).__name__}: {line[:400]}") from error
    torch.export.save(program, path)


def images_for(model: nn.Module, entry: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Images of another size than exported, if the network takes them."""
    small = torch.randn(RUN, generator=generator)
    try:
        with torch.no_grad():
            copy.deepcopy(model)(small)
        return small
    except Exception:
        return torch.randn(RUN[0], *EXPORTED[1:], generator=generator)


def reference(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Writes the files of one network; what is to be said of it."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    name, names = name_of(entry), entry.get("stages", [])
    if entry.get("double", False):
        # For the rest of this process.
        Tensor.float = lambda tensor: tensor
    model = build(entry).train()
    without_chance(model)
    export(model, EXPORTED, folder / f"{name}.pt2")

    images = images_for(model, entry, generator)
    active = visible_patches(images, generator)
    tensors = {"input": images, "active": active.to(torch.uint8)}
    grid, gradients, buffers = trained(model, names, images, None)
    tensors |= {f"grid.{index}": stage for index, stage in enumerate(grid)}
    tensors |= {f"gridgrad.{key}": value for key, value in gradients.items()}
    tensors |= {f"gridbuffer.{key}": value for key, value in buffers.items()}
    said: dict[str, Any] = {
        "status": "ok",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "stages": [list(stage.shape) for stage in grid],
    }
    try:
        masked, gradients, buffers = trained(model, names, images, VisiblePositions(active))
        tolerance = entry.get("tolerance", TOLERANCE)
        error = check_visible(model, names, images, grid, active, masked, tolerance)
        said["all_visible"] = error
        tensors |= {f"masked.{index}": stage for index, stage in enumerate(masked)}
        tensors |= {f"grad.{key}": value for key, value in gradients.items()}
        tensors |= {f"buffer.{key}": value for key, value in buffers.items()}
    except Refused as refusal:
        said |= {"status": "whole grid", "reason": str(refusal)}
    strange = [key for key, value in tensors.items() if not value.isfinite().all()]
    if strange:
        raise AssertionError(f"not finite: {strange[:5]}")
    about = {"entry": entry, "stages": names} | said
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, folder / f"{name}.safetensors", {"about": json.dumps(about)})
    return said


def child(entry: dict[str, Any], folder: Path, answer: Any) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    start = time.time()
    try:
        said = reference(entry, folder)
    except NotExported as error:
        said = {"status": "not exported", "reason": str(error)}
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(line.filename).name}:{line.lineno}"
        said = {"status": "failed", "reason": f"{type(error).__name__}: {error} ({where})"}
    answer.send(said | {"seconds": round(time.time() - start, 1)})


def run(entry: dict[str, Any], folder: Path, timeout: float) -> dict[str, Any]:
    """`reference` in a process of its own, which a network may fill or hang."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=child, args=(entry, folder, sender))
    process.start()
    sender.close()
    try:
        said = receiver.recv() if receiver.poll(timeout) else {"status": "slow"}
    except EOFError:
        said = {"status": "failed", "reason": "the process was killed: out of memory?"}
    process.kill()
    process.join()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", type=lambda text: text.split(","), help="names, by commas")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a network")
    parser.add_argument("--again", action="store_true", help="those that are there, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork")
    # Imported once, before the processes part.
    import timm  # noqa: F401
    import torchvision  # noqa: F401

    entries = {name_of(entry): entry for entry in json.loads(options.list.read_text())}
    unknown = [name for name in options.only or [] if name not in entries]
    if unknown:
        raise SystemExit(f"{options.list} has no {', '.join(unknown)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    summary_file = options.folder / "summary.json"
    summary = json.loads(summary_file.read_text()) if summary_file.exists() else {}
    for name in options.only or entries:
        if name in summary and not options.again and not options.only:
            continue
        said = run(entries[name], options.folder, options.timeout)
        summary[name] = {"family": entries[name]["family"]} | said
        summary_file.write_text(json.dumps(summary, indent=1))
        parts = (said["status"], said.get("seconds", ""), said.get("reason", ""))
        print(f"{name:28s} {parts[0]:12s} {parts[1]} {parts[2]}", flush=True)


if __name__ == "__main__":
    main()
