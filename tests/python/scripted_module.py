"""Scripts a module that holds a backbone and saves it: argv is the library,
weights, images (both safetensors), and the folder to write to."""

import sys
from pathlib import Path

import safetensors.torch
import torch

library, weights, images, folder = sys.argv[1:]
torch.classes.load_library(library)


class Scripted(torch.nn.Module):
    def __init__(self, weights: str):
        super().__init__()
        self.backbone = torch.classes.spark.Backbone("resnet18", weights)
        self.backbone.train(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.backbone.forward(images)

    @torch.jit.export
    def set_training(self, on: bool):
        self.backbone.train(on)

    @torch.jit.export
    def parameters_of_backbone(self) -> dict[str, torch.Tensor]:
        return self.backbone.named_parameters()


folder = Path(folder)
scripted = torch.jit.script(Scripted(weights))
scripted.save(folder / "module.pt")
torch.save(safetensors.torch.load_file(images)["images"], folder / "images.pkl")

# Saved and loaded in Python, too: every bit.
with torch.no_grad():
    batch = safetensors.torch.load_file(images)["images"]
    again = torch.jit.load(folder / "module.pt")
    for ours, theirs in zip(scripted(batch), again(batch), strict=True):
        assert torch.equal(ours, theirs)
