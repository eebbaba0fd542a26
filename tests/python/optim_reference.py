"""Runs PyTorch's and timm's optimizers on given parameters and gradients.

usage: optim_reference.py INPUT.safetensors CASES.json OUTPUT.safetensors

INPUT holds `param.<name>` and `grad.<step>.<name>`; a missing gradient is None.
CASES lists {name, kind, options, max_norm, max_value, groups: [{names, lr_scale,
wd_scale}], schedule: [[lr, weight_decay], …]}; of max_norm and max_value, which the
gradients are clipped to, at most one is not null. OUTPUT gets `<case>.<step>.<name>`, the
parameters after each step, and `<case>.<step>.norm`, the gradient norm before it.
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file
from timm.optim import Lamb, Lion

OPTIMIZERS = {
    "lamb": Lamb,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "lion": Lion,
}


def run(case, tensors, results):
    params = {
        key.removeprefix("param."): torch.nn.Parameter(value.clone())
        for key, value in tensors.items()
        if key.startswith("param.")
    }
    groups = [
        {"params": [params[n] for n in g["names"]], "scales": (g["lr_scale"], g["wd_scale"])}
        for g in case["groups"]
    ]
    optimizer = OPTIMIZERS[case["kind"]](groups, lr=0.1, **case["options"])
    for step, (lr, weight_decay) in enumerate(case["schedule"]):
        for name, param in params.items():
            grad = tensors.get(f"grad.{step}.{name}")
            param.grad = None if grad is None else grad.clone()
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scales"][0]
            group["weight_decay"] = weight_decay * group["scales"][1]
        norm = torch.nn.utils.get_total_norm([p.grad for p in params.values() if p.grad is not None])
        if case["max_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(params.values(), case["max_norm"])
        if case["max_value"] is not None:
            torch.nn.utils.clip_grad_value_(params.values(), case["max_value"])
        optimizer.step()
        results[f"{case['name']}.{step}.norm"] = norm.clone()
        for name, param in params.items():
            results[f"{case['name']}.{step}.{name}"] = param.detach().clone()


def main():
    inputs, cases, output = sys.argv[1:]
    tensors, results = load_file(inputs), {}
    with open(cases) as file:
        for case in json.load(file):
            run(case, tensors, results)
    save_file(results, output)


main()
