"""Fine-tuning steps of a timm classifier."""

import argparse

import safetensors.torch
import timm
import timm.optim
import torch

import networks
import protocol
from operations import count

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--weight-decay", type=float, required=True)
arguments = networks.arguments(parser)

memory = protocol.Memory()
model = timm.create_model(arguments.model, pretrained=False)
model = networks.loaded(model, arguments.inputs).train()
images = safetensors.torch.load_file(arguments.inputs / "images.safetensors")["images"]
images = images.to(memory_format=torch.channels_last)
# One class an image, the same on the other side.
labels = torch.arange(len(images))
# Of one image: all take as many.
operations = len(images) * count(lambda: model(images[:1]).sum().backward())
groups = timm.optim.param_groups_weight_decay(model, arguments.weight_decay)
optimizer = torch.optim.AdamW(groups, lr=arguments.lr, fused=True)
forward = torch.compile(model) if arguments.compile else model
autocast = networks.autocast(arguments)


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
