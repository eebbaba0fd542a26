"""Fine-tuning steps of a timm classifier."""

import argparse
import contextlib
from pathlib import Path

import safetensors.torch
import timm
import timm.optim
import torch

import protocol
from operations import count

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--weight-decay", type=float, required=True)
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--autocast", action="store_true", help="to bfloat16")
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
memory = protocol.Memory()
model = timm.create_model(arguments.model, pretrained=False)
weights = safetensors.torch.load_file(arguments.inputs / "weights.safetensors")
model.load_state_dict(weights)
del weights
model = model.train().to(memory_format=torch.channels_last)
images = safetensors.torch.load_file(arguments.inputs / "images.safetensors")["images"]
images = images.to(memory_format=torch.channels_last)
# One class an image, the same on the other side.
labels = torch.arange(len(images))
# Of one image: all take as many.
operations = len(images) * count(lambda: model(images[:1]).sum().backward())
groups = timm.optim.param_groups_weight_decay(model, arguments.weight_decay)
optimizer = torch.optim.AdamW(groups, lr=arguments.lr, fused=True)
forward = torch.compile(model) if arguments.compile else model
autocast = contextlib.nullcontext()
if arguments.autocast:
    autocast = torch.autocast("cpu", torch.bfloat16)


def step():
    optimizer.zero_grad(set_to_none=True)
    with autocast:
        logits = forward(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


# The second shows whether gradients and optimizer agree, too.
losses = [step(), step()]
memory.forget_peak()
protocol.serve({"loss": losses}, memory, 1, step, operations)
