"""Networks as `.pt2` files, and what the programs made of them.

fixture FILE          writes `Tiny` as the fixture of the programs' tests
make FOLDER NAME...   writes NAME.pt2 and NAME.safetensors (other weights) of these networks
check FOLDER NAME WHAT
                      loads FOLDER/NAME_WHAT.* back into the network, strictly
timm FOLDER CLASSES   loads a folder of timm's, with so many classes
predict FOLDER NAME WEIGHTS JSON
                      predicts for the images in FOLDER/JSON with weights 0 or 1 of the network, and
                      holds it against what JSON says
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import safetensors.torch
import timm
import torch
from PIL import Image
from timm.layers import DropPath
from torch import Tensor, nn

IMAGE = (1, 3, 64, 64)


class Small(nn.Module):
    """Four stages of strides 4 to 32, a parameter of its own, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8, 1, 1))
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        widths = (8, 16, 24, 32, 40)
        for stage, (before, after) in enumerate(zip(widths, widths[1:]), 1):
            self.add_module(
                f"stage{stage}",
                nn.Sequential(
                    nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
                ),
            )
        self.classifier = nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) * self.gain
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return self.classifier(x.mean((2, 3)))


class Pyramid(Small):
    """Its stages alone, without a classifier."""

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x) * self.gain
        maps = []
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps


class Attending(Small):
    """The same with positions that look at each other: nothing for visible patches alone."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(self.stem(x) * self.gain)
        scores = self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        mixed = x.flatten(2) @ scores.softmax(-1).transpose(1, 2)
        x = x + mixed.view_as(x)
        for stage in (self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return self.classifier(x.mean((2, 3)))


class Dropping(Small):
    """The same with residual branches that are dropped, and dropout of elements and of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.SiLU(), dropout(0.2))
            for width, dropout in ((16, nn.Dropout), (24, nn.Dropout2d), (32, nn.Dropout))
        )
        self.drops = nn.ModuleList(DropPath(0.3) for _ in self.branches)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) * self.gain
        stages = (self.stage1, self.stage2, self.stage3)
        for stage, branch, drop in zip(stages, self.branches, self.drops, strict=True):
            x = stage(x)
            x = x + drop(branch(x))
        return self.classifier(self.stage4(x).mean((2, 3)))


class Tiny(Small):
    """The same with a residual branch in each stage that is dropped now and then: the fixture of
    the programs' tests."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 32, 40)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.BatchNorm2d(width))
            for width in widths
        )
        self.drops = nn.ModuleList(DropPath(0.1) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) * self.gain
        stages = (self.stage1, self.stage2, self.stage3, self.stage4)
        for stage, branch, drop in zip(stages, self.branches, self.drops, strict=True):
            x = stage(x)
            x = x + drop(branch(x))
        return self.classifier(x.mean((2, 3)))


NETWORKS = {
    "dropping": Dropping,
    "test_resnet": lambda: timm.create_model("test_resnet", num_classes=10),
    "small": Small,
    "attending": Attending,
    "pyramid": Pyramid,
    "tiny": Tiny,
}


def network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                # As after some training: no branch is closed.
                norm.weight.uniform_(0.5, 1.5)
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def make(folder: Path, *names: str) -> None:
    for name in names:
        exported = torch.export.export(network(name, 0), (torch.randn(IMAGE),))
        torch.export.save(exported, folder / f"{name}.pt2")
        other = network(name, 1).state_dict()
        safetensors.torch.save_file(other, folder / f"{name}.safetensors")


def fixture(file: Path) -> None:
    # In train mode, in which paths are dropped.
    exported = torch.export.export(network("tiny", 0).train(), (torch.zeros(2, 3, 32, 32),))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("models/model.json"):
                # Where the code lay on the machine that wrote it is nobody's concern.
                program = json.loads(content)
                for node in program["graph_module"]["graph"]["nodes"]:
                    node["metadata"].pop("stack_trace", None)
                content = json.dumps(program, separators=(",", ":")).encode()
            target.writestr(zipfile.ZipInfo(entry.filename), content)


def check(folder: Path, name: str, what: str) -> None:
    start = network(name, 0).state_dict()
    state = torch.load(folder / f"{name}_{what}.pth", weights_only=True)
    same = safetensors.torch.load_file(folder / f"{name}_{what}.safetensors")
    assert state.keys() == same.keys() and all(torch.equal(state[key], same[key]) for key in same)
    if what == "classifier":
        head = {key: state.pop(key) for key in ("head.weight", "head.bias")}
        assert len(head["head.weight"]) == len(head["head.bias"]) == 3
    model = network(name, 2)
    model.load_state_dict(state, strict=True)
    learned = [key for key in state if not torch.equal(state[key], start[key])]
    assert any(key.startswith(("stem", "conv1")) for key in learned), learned
    assert not any(key.startswith(("classifier", "fc")) for key in learned), learned
    file = folder / f"{name}_{what}.pt2"
    if what == "classifier":
        assert not file.exists()
        return
    exported = torch.export.load(file)
    assert all(torch.equal(exported.state_dict[key], state[key]) for key in state)
    images = torch.randn(IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(images), model(images))


def of_timm(folder: Path, classes: int) -> None:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.num_classes == classes, model.num_classes
    file = safetensors.torch.load_file(folder / "model.safetensors")
    state = model.state_dict()
    assert state.keys() == file.keys() and all(torch.equal(state[key], file[key]) for key in file)


def predict(folder: Path, name: str, weights: str, predictions: str) -> None:
    from torchvision import transforms

    model = network(name, int(weights))
    prepare = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    said = json.loads((folder / predictions).read_text())
    assert len(said) > 1
    for entry in said:
        image = prepare(Image.open(folder / entry["file"]).convert("RGB"))
        with torch.no_grad():
            shares = model(image[None]).softmax(1)[0]
        classes = [guess["class"] for guess in entry["classes"]]
        assert classes == shares.argsort(descending=True)[: len(classes)].tolist(), entry["file"]
        found = torch.tensor([guess["probability"] for guess in entry["classes"]])
        # Resized bytes are rounded otherwise now and then.
        torch.testing.assert_close(found, shares[classes], atol=2e-3, rtol=0)


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:]
    if command == "make":
        make(Path(folder), *rest)
    elif command == "fixture":
        fixture(Path(folder))
    elif command == "check":
        check(Path(folder), *rest)
    elif command == "predict":
        predict(Path(folder), *rest)
    else:
        of_timm(Path(folder), int(rest[0]))
    print("ok")
