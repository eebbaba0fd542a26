"""A worker of timm's forward passes in eager mode."""

import argparse

import safetensors.torch
import timm
import torch

import networks
import protocol
from operations import count

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--passes", type=int, required=True, help="of a round")
parser.add_argument("--samples", type=int, required=True, help="of a level to tell")
arguments = networks.arguments(parser, ways=False)

memory = protocol.Memory()
model = timm.create_model(arguments.model, pretrained=False)
model = networks.loaded(model, arguments.inputs).eval()
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
