"""Pretraining from the start of the process to the end of its first step.

Prints the peak memory in megabytes when the step is done, and ends when its
input does.
"""

import argparse
import os
import signal
import sys

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import spark


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(
            arguments.size, (0.67, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    loader = DataLoader(
        datasets.ImageFolder(arguments.inputs, transform),
        batch_size=arguments.batch,
        shuffle=True,
        num_workers=arguments.threads,
        drop_last=True,
    )
    images, _ = next(iter(loader))
    side = arguments.size // 32
    keep = round(side * side * 0.4)
    order = torch.rand(arguments.batch, side * side).argsort(dim=1)
    active = torch.zeros(arguments.batch, side * side, dtype=torch.bool)
    active.scatter_(1, order[:, :keep], True)
    active = active.view(-1, 1, side, side)
    spark.Step(spark.Spark(spark.encoder(arguments.model)), images, active, 1e-3, 0.04)()

    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    print(int(line.split()[1]) * 1024 / 1e6, flush=True)
    sys.stdin.read()
    # The loader's processes too, which otherwise take a while to notice.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
