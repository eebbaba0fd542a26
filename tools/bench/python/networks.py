"""What the workers of timm's and torchvision's networks share."""

import contextlib
from pathlib import Path

import safetensors.torch
import torch


def arguments(parser, ways=True):
    """The arguments, with those that every worker has; of some there are several ways to work."""
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    if ways:
        parser.add_argument("--compile", action="store_true")
        parser.add_argument("--autocast", action="store_true", help="to bfloat16")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def loaded(model, inputs):
    """The model with the weights among the inputs, channels last."""
    model.load_state_dict(safetensors.torch.load_file(inputs / "weights.safetensors"))
    return model.to(memory_format=torch.channels_last)


def autocast(given):
    """The arithmetic that was asked for."""
    return torch.autocast("cpu", torch.bfloat16) if given.autocast else contextlib.nullcontext()
