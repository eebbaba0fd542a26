"""The Python side of bridge_overhead: for each line "batch pixels forwards" of
standard input it prints the seconds they took. Arguments: the package's folder,
the model."""

import sys
import time

sys.path.insert(0, sys.argv[1])

import spark_backbone
import torch

backbone = spark_backbone.Backbone(sys.argv[2]).eval()
with torch.no_grad():
    for line in sys.stdin:
        batch, pixels, rounds = map(int, line.split())
        images = torch.ones(batch, 3, pixels, pixels)
        start = time.perf_counter()
        for _ in range(rounds):
            backbone(images)
        print(time.perf_counter() - start, flush=True)
