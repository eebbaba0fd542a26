"""Exported programs: `export FOLDER` writes some with their tensors beside them; `check FOLDER`
loads those that the crate wrote again, and compares every number and what the networks compute."""

import sys
import warnings
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import nn
from torch.export import Dim

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
command, folder = sys.argv[1], Path(sys.argv[2])


class Odd(nn.Module):
    """Tied weights, strided and empty buffers, constants, several types, an autocast region."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        rows = torch.arange(32.0).view(4, 8)
        buffers = {
            "row1": rows[1],
            "row2": rows[2],
            "bits": rows.view(torch.int32)[3],
            "turned": torch.randn(8, 4).t(),
            "empty": torch.zeros(0, 3),
            "also_empty": torch.zeros(2, 0),
            "count": torch.tensor(3),
            "flags": torch.tensor([True, False]),
            "narrow": torch.randn(4).to(torch.float8_e4m3fn),
            "lower": torch.randn(3).to(torch.bfloat16),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.register_buffer("unsaved", torch.arange(8.0), persistent=False)
        self.register_buffer("expanded", torch.randn(1).expand(8), persistent=False)
        self.constant = torch.randn(8, 1, 1)

    def forward(self, x):
        x = self.conv(x) + self.constant + self.unsaved.view(-1, 1, 1) + torch.tensor([1.5])
        x = torch.where(x > 0, x, float("-inf")).clamp(min=-3.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.second(self.first(x.mean((2, 3))))
        half = nn.functional.interpolate(x, size=(x.shape[2] // 2, x.shape[3] // 2))
        return y.float() + self.row1 + self.row2 + self.expanded, torch.split(half, [3, 5], 1)


def networks():
    torch.manual_seed(0)
    resnet = timm.create_model("resnet18", num_classes=10).to(memory_format=torch.channels_last)
    return {
        "resnet18": (resnet.train(), None),
        "odd": (Odd(), None),
        "dynamic": (Odd(), ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)),
        "eval": (timm.create_model("test_efficientnet").eval(), None),
    }


def image(height=64, width=96):
    return torch.linspace(-1, 1, 2 * 3 * height * width).sin().view(2, 3, height, width)


def write(path, tensors):
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)


def flat(outputs):
    tensors = []
    for output in outputs if isinstance(outputs, (tuple, list)) else [outputs]:
        tensors += flat(output) if isinstance(output, (tuple, list)) else [output]
    return tensors


if command == "export":
    for name, (model, dynamic_shapes) in networks().items():
        program = torch.export.export(model, (image(),), dynamic_shapes=dynamic_shapes)
        torch.export.save(program, folder / f"{name}.pt2")
        write(folder / f"{name}.state.safetensors", program.state_dict)
        write(folder / f"{name}.constants.safetensors", program.constants)
else:
    for name, (model, dynamic_shapes) in networks().items():
        given = safetensors.torch.load_file(folder / f"{name}.changed.safetensors")
        original = torch.export.load(folder / f"{name}.pt2")
        # The second was written by an archive without the example inputs and most weights.
        for file in (f"{name}_again.pt2", f"{name}_small.pt2"):
            program = torch.export.load(folder / file)
            state = program.state_dict
            assert list(state) == list(original.state_dict), file
            for key, tensor in original.state_dict.items():
                # Float8 is beside it as float32.
                assert torch.equal(state[key].float(), given[key].float()), f"{file} {key}"
                assert state[key].stride() == tensor.stride(), f"{file} {key}"
                assert state[key].dtype == tensor.dtype, f"{file} {key}"
                assert isinstance(state[key], nn.Parameter) == isinstance(tensor, nn.Parameter)
            assert (program.example_inputs is None) == ("small" in file), file
            model.load_state_dict(state, strict=True)
            x = image(128, 64) if dynamic_shapes else image()
            expected = flat(model(x))
            for found, wanted in zip(flat(program.module()(x)), expected, strict=True):
                torch.testing.assert_close(found, wanted)
        if name != "odd":
            continue
        shared = program.state_dict
        tied = (shared["first.weight"], shared["second.weight"])
        assert tied[0].data_ptr() == tied[1].data_ptr()
    print("ok")
