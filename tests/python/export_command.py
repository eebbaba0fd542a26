"""Tries `python -m spark_backbone.export`: what it writes, what it says, what it refuses.

    export_command.py FOLDER [NAME ...]

FOLDER is for files; NAMEs are checks, all by default. The package is the checkout's. Prints a line
a check, ends with 1 if one failed.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock
from urllib.error import URLError

# No server is asked: what is to be downloaded must fail, and be said.
os.environ["HF_HUB_OFFLINE"] = "1"
PACKAGE = str(Path(__file__).resolve().parents[2] / "ffi" / "python")
os.environ["PYTHONPATH"] = PACKAGE
sys.path.insert(0, PACKAGE)

import torch
from torch import nn

# As Python has it on its way to `-m spark_backbone.export`: the package needs no library then.
with (
    mock.patch.object(sys, "argv", ["-m"]),
    mock.patch.object(sys, "orig_argv", [sys.executable, "-m", "spark_backbone.export"]),
):
    from spark_backbone import export

HERE = Path(__file__).parent
SMALL = ["--size", "64"]
CHECKS: list[Callable[[], None]] = []

# A module of the user's, in the current folder.
USERS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8, in_chans=3, drop_path_rate=0.0):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.1)
        self.rate = drop_path_rate

    def forward(self, x):
        x = self.norm(self.conv(x))
        y = self.drop(torch.relu(x))
        if self.rate and self.training:
            y = y * y.new_empty(y.shape[0], 1, 1, 1).bernoulli_(1 - self.rate)
        return x + y

def raises():
    widths = {}
    return Net(widths["narrow"])

def number():
    return 3

ready = Net(4)
three = 3

class Wrong(Net):
    def forward(self, x):
        return self.conv(x).view(x.shape[0], 7, -1)
"""


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def exports(*arguments: str) -> str:
    """What the command says of a success."""
    status, out, err = command(*arguments)
    assert status == 0, f"{arguments}: {status}: {err}"
    return out


def refuses(*arguments: str, says: list[str], status: int = 1) -> None:
    """It fails, says so, and leaves no file."""
    before = sorted(os.listdir())
    found, _, err = command(*arguments)
    assert found == status, f"{arguments}: status {found}, not {status}: {err}"
    for part in says:
        assert part in err, f"{arguments}: no {part!r} in {err!r}"
    assert "Traceback" not in err, err
    after = sorted(name for name in os.listdir() if name != "__pycache__")
    assert after == [name for name in before if name != "__pycache__"], after


def command(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = export.main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


def operators(path: str) -> list[str]:
    graph = torch.export.load(path).graph
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


# ---- What it writes ----


@check
def as_a_command() -> None:
    """From the folder of the user's module, in a process of its own."""
    arguments = [sys.executable, "-m", "spark_backbone.export", "mynets:Net", *SMALL]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for part in (
        "wrote Net.pt2", "mynets:Net, in train mode", "240 in 4 tensors", "float32 2×3×64×64",
        torch.__version__, "schema 8.", "drop-path   none", "the same output",
        "next: pretrain inspect Net.pt2",
    ):
        assert part in done.stdout, (part, done.stdout)
    # The archive's own root has the file's name, and nothing else is left behind.
    roots = {name.split("/")[0] for name in zipfile.ZipFile("Net.pt2").namelist()}
    assert roots == {"Net"}, roots
    assert not [name for name in os.listdir() if name.startswith(".export")]


@check
def users_networks() -> None:
    exports("mynets:Net", "-o", "wide.pt2", "--arg", "width=16", "--in-chans", "4", *SMALL)
    state = torch.export.load("wide.pt2").state_dict
    assert state["conv.weight"].shape == (16, 4, 3, 3), state["conv.weight"].shape
    exports("mynets:ready", "-o", "ready.pt2", *SMALL)
    said = exports("mynets:Net", "-o", "drop.pt2", "--drop-path", "0.2", "--size", "64x96")
    assert "drop-path   1 draws" in said and "2×3×64×96" in said, said
    said = exports("mynets:Net", "-o", "odd.pt2", "--size", "50", "--batch", "3")
    assert "3×3×50×50" in said and "multiple of 32" in said, said


@check
def train_or_evaluation_mode() -> None:
    exports("mynets:Net", "-o", "train.pt2", "--drop-path", "0.2", *SMALL)
    said = exports("mynets:Net", "-o", "eval.pt2", "--drop-path", "0.2", "--eval", *SMALL)
    assert "evaluation mode" in said and "nothing is dropped in the graph" in said, said
    assert any("bernoulli" in name for name in operators("train.pt2"))
    assert not any("bernoulli" in name for name in operators("eval.pt2"))
    refuses("mynets:Net", "--batch", "1", *SMALL, says=["batch is 1", "2 or more"])
    exports("mynets:Net", "-o", "one.pt2", "--batch", "1", "--eval", *SMALL)


@check
def timms_networks() -> None:
    shape = ["--arg", "depths=[1,1,1,1]", "--arg", "dims=(8,8,16,16)"]
    said = exports("timm:convnext_atto", "-o", "c.pt2", *shape, "--drop-path", "0.2", *SMALL)
    # The first block's rate is 0.
    assert "drop-path   3 draws" in said, said
    exports("timm:convnext_atto", "-o", "f.pt2", *shape, "--features", "--in-chans", "1", *SMALL)
    program = torch.export.load("f.pt2")
    assert len(program.graph_signature.user_outputs) == 4
    assert program.state_dict["stem_0.weight"].shape == (8, 1, 4, 4)


@check
def torchvisions_networks() -> None:
    said = exports("torchvision:efficientnet_b0", "--drop-path", "0.3", *SMALL)
    assert "wrote efficientnet_b0.pt2" in said and "drop-path   9 draws" in said, said
    refuses("torchvision:shufflenet_v2_x0_5", "--drop-path", "0.1", says=["no drop-path rate"])
    refuses("torchvision:resnet18", "--in-chans", "4", says=["in_chans is 4", "3 channels"])
    refuses("torchvision:resnet18", "--features", says=["--features is timm's"])


@check
def weights_of_a_file() -> None:
    import mynets
    from safetensors.torch import save_file

    state = {name: torch.rand_like(t.float()).to(t.dtype) for name, t in
             mynets.Net().state_dict().items()}
    torch.save(state, "w.pth")
    torch.save({"state_dict": state, "epoch": 3}, "checkpoint.pth")
    save_file(state, "w.safetensors")
    for file in ("w.pth", "checkpoint.pth", "w.safetensors"):
        exports("mynets:Net", "-o", "w.pt2", "--overwrite", "--weights", file, *SMALL)
        loaded = torch.export.load("w.pt2").state_dict
        assert loaded.keys() == state.keys() and all(
            torch.equal(loaded[name], tensor) for name, tensor in state.items()
        ), file
    torch.save(nn.Linear(2, 2), "module.pth")
    torch.save({**state, "head.weight": torch.zeros(2)}, "more.pth")
    torch.save({k: v for k, v in state.items() if k != "conv.bias"}, "fewer.pth")
    torch.save({**state, "conv.bias": torch.zeros(3)}, "shape.pth")
    Path("noise.pth").write_bytes(b"noise")
    for file, says in {
        "none.pth": ["no such file", "none.pth"],
        "module.pth": ["module.pth is no state dict", "state_dict()"],
        "noise.pth": ["noise.pth is no state dict"],
        "more.pth": ["the network has no head.weight"],
        "fewer.pth": ["lacks conv.bias"],
        "shape.pth": ["conv.bias is [3]", "[8]"],
    }.items():
        refuses("mynets:Net", "--weights", file, "-o", "x.pt2", *SMALL, says=says)
    refuses("timm:resnet18", "--weights", "w.pth", "--pretrained", says=["give one"])


@check
def files_that_are_there() -> None:
    Path("there.pt2").write_text("precious")
    Path("folder.pt2").mkdir()
    here = ["mynets:Net", *SMALL, "-o"]
    refuses(*here, "there.pt2", says=["there.pt2 is there already", "--overwrite"])
    assert Path("there.pt2").read_text() == "precious"
    # Not replaced by a failure either.
    wrong = ["mynets:Wrong", *SMALL, "-o", "there.pt2", "--overwrite"]
    refuses(*wrong, says=["cannot trace", "mynets.py", ".view("])
    assert Path("there.pt2").read_text() == "precious"
    exports(*here, "there.pt2", "--overwrite")
    torch.export.load("there.pt2")
    refuses(*here, "folder.pt2", "--overwrite", says=["folder.pt2", "is a folder"])
    refuses(*here, "none/x.pt2", says=["no folder none"])
    refuses(*here, "x.pt", says=["must end in .pt2"])
    # A file that cannot be verified gets no name.
    with mock.patch.object(export, "verify", side_effect=export.ExportError("differs")):
        refuses(*here, "unverified.pt2", says=["differs"])
    with mock.patch.object(torch.export, "save", side_effect=OSError("no space left")):
        refuses(*here, "full.pt2", says=["full.pt2 cannot be written", "no space left"])


# ---- Wrong uses ----


@check
def wrong_names() -> None:
    refuses("resnet18", says=["'resnet18'", "package.module:function", "timm:resnet18"])
    refuses("timm:regnety_16", says=["no model 'regnety_16'", "regnety_016"])
    refuses("torchvision:resnet19", says=["no model 'resnet19'", "resnet18"])
    refuses("tim:resnet18", says=["no module 'tim'", "timm"])
    refuses("mynet:Net", says=["no module 'mynet'", os.getcwd(), "mynets"])
    refuses("mynets:Nett", says=["mynets has no 'Nett'", "Net"])
    refuses("timm:", says=["package.module:function"])
    refuses(says=["source"], status=2)


@check
def wrong_functions() -> None:
    Path("broken.py").write_text("import mynets\nimport no_such_package\n")
    Path("syntax.py").write_text("def f(:\n")
    refuses("mynets:raises", says=["KeyError: 'narrow'", "mynets.py:", 'widths["narrow"]'])
    refuses("mynets:number", says=["of type int", "torch.nn.Module"])
    refuses("mynets:three", says=["is of type int", "function or class"])
    refuses("broken:f", says=["broken cannot be imported", "no_such_package"])
    refuses("syntax:f", says=["syntax cannot be imported", "SyntaxError"])
    refuses("mynets:Net", "--arg", "wide=3", says=["unexpected keyword argument 'wide'"])
    refuses("mynets:raises", "--drop-path", "0.1", says=["takes no drop_path_rate"])
    refuses("mynets:Net", "--pretrained", says=["--weights FILE"])


@check
def wrong_options() -> None:
    for arguments, says in (
        (["--size", "0"], "'0' is neither a side"),
        (["--size", "64x"], "'64x' is neither a side"),
        (["--size", "-5"], "--size"),
        (["--batch", "0"], "'0' is no number from 1 on"),
        (["--in-chans", "x"], "'x' is no number"),
        (["--drop-path", "1"], "'1' is not in [0, 1)"),
        (["--drop-path", "nan"], "'nan' is not in [0, 1)"),
        (["--sise", "64"], "--sise"),
    ):
        refuses("mynets:Net", *arguments, says=[says], status=2)
    refuses("mynets:Net", "--arg", "width", says=["'width'", "key=value"])
    refuses("mynets:Net", "--arg", "width=(1", says=["'(1'", "Python literal"])
    refuses("mynets:Net", "--arg", "width=1", "--arg", "width=2", says=["width twice"])
    twice = ["--in-chans", "4", "--arg", "in_chans=5"]
    refuses("mynets:Net", *twice, says=["--arg sets in_chans"])
    # More channels than the network takes.
    refuses("mynets:ready", "--in-chans", "4", *SMALL, says=["cannot trace", "channels"])


@check
def networks_that_cannot_be_traced() -> None:
    says = ["cannot trace", "data-dependent", "refused.py:", "if x.mean() > 0.5"]
    refuses("graph_nets:ByContent", *SMALL, says=says)


@check
def weights_that_cannot_be_downloaded() -> None:
    says = ["cannot be downloaded", "--weights FILE"]
    with mock.patch.dict(os.environ, {"HF_HOME": os.getcwd()}):
        refuses("timm:resnet18", "--pretrained", says=["timm:resnet18", *says])
    offline = mock.Mock(side_effect=URLError("no route"))
    with mock.patch("torchvision.models._api.load_state_dict_from_url", offline):
        refuses("torchvision:resnet18", "--pretrained", says=["no route", *says])


@check
def old_torches() -> None:
    for release in ("2.8.0", "2.8.0+cu128", "1.13.1"):
        with mock.patch.object(torch, "__version__", release):
            refuses("mynets:Net", says=[f"torch {release} is installed", "torch>=2.9"])
    export.check_release("2.9.0a0+git1")
    export.check_release("3.0.0")


@check
def help_has_examples() -> None:
    said = exports("--help")
    for part in ("timm:regnety_016 -o regnety.pt2", "package.module:function", "train mode"):
        assert part.lower() in said.lower(), part


def main() -> int:
    folder = Path(sys.argv[1]).absolute()
    wanted = sys.argv[2:]
    unknown = set(wanted) - {function.__name__ for function in CHECKS}
    if unknown:
        print(f"no check is called {sorted(unknown)}", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    failed = 0
    for function in CHECKS:
        if wanted and function.__name__ not in wanted:
            continue
        own = folder / function.__name__
        own.mkdir(parents=True)
        os.chdir(own)
        (own / "mynets.py").write_text(USERS)
        # Each check imports its own; graph_nets lies beside this file.
        for name in ("mynets", "broken", "syntax"):
            sys.modules.pop(name, None)
        sys.path[:] = [str(own), str(HERE)] + [p for p in sys.path if not p.startswith(str(folder))]
        try:
            function()
            print(f"ok  {function.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
