"""Times torchvision's operators, one call for each line on standard input.

Usage: detection_ops_speed.py OPERANDS THREADS. A line is the JSON of a call; the
answer is its seconds."""

import json
import sys
import time

import torch
from safetensors.torch import load_file
from torchvision import ops

operands = load_file(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))


def roi_align(name, output, ratio, aligned, backward):
    features = operands[f"{name}.features"].requires_grad_(backward)
    rois, upstream = operands[f"{name}.rois"], operands[f"{name}.upstream"]
    features.grad = None
    start = time.perf_counter()
    pooled = ops.roi_align(features, rois, (output, output), 0.25, ratio, aligned)
    if backward:
        pooled.backward(upstream)
    return time.perf_counter() - start


def nms(name, threshold, batched):
    boxes, scores, classes = (operands[f"{name}.{key}"] for key in ["boxes", "scores", "classes"])
    start = time.perf_counter()
    if batched:
        ops.batched_nms(boxes, scores, classes, threshold)
    else:
        ops.nms(boxes, scores, threshold)
    return time.perf_counter() - start


for line in sys.stdin:
    call = json.loads(line)
    print(globals()[call.pop("operator")](**call), flush=True)
