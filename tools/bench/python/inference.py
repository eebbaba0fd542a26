"""A worker of timm's forward passes in eager mode."""

import argparse
from pathlib import Path

import safetensors.torch
import timm
import torch

import protocol
from operations import count

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--passes", type=int, required=True, help="of a round")
parser.add_argument("--samples", type=int, required=True, help="of a level to tell")
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--threads", type=int, required=True)
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
memory = protocol.Memory()
model = timm.create_model(arguments.model, pretrained=False)
weights = safetensors.torch.load_file(arguments.inputs / "weights.safetensors")
model.load_state_dict(weights)
del weights
model = model.eval().to(memory_format=torch.channels_last)
images = safetensors.torch.load_file(arguments.inputs / "images.safetensors")["images"]
images = images[: arguments.batch].to(memory_format=torch.channels_last).clone()
with torch.no_grad():
    operations = count(lambda: model.forward_features(images))
memory.forget_peak()


def samples(level):
    """As many values as asked for, evenly spaced."""
    values = level.contiguous().flatten()
    return values[:: len(values) // arguments.samples][: arguments.samples].tolist()


with torch.inference_mode():
    levels = model.forward_intermediates(images, intermediates_only=True)[-4:]
    checks = {f"level {i}": samples(level) for i, level in enumerate(levels)}
    del levels

    def round():
        for _ in range(arguments.passes):
            model.forward_features(images)

    protocol.serve(checks, memory, arguments.passes, round, operations)
