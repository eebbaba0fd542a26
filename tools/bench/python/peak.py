"""The most operations a second that convolutions and matrix products reach on this machine.

peak.py THREADS SECONDS     prints {"float32": {"speed": S, "by": WHAT}, "bfloat16": ...}: the
                            fastest call of all kinds and sizes, each of which is repeated for so
                            many seconds
"""

import json
import sys
import time

import torch
from torch.nn.functional import conv2d

# Images, channels and side of what a 3 × 3 convolution makes; rows and columns of square matrices.
# Ascending: the more cores, the larger a product must be to keep them busy.
CONVOLUTIONS = [(8, 128, 28), (8, 256, 28), (16, 512, 28)]
MATRICES = [(1024,), (2048,), (4096,)]
# Seconds of a call after which no larger one is tried.
LONG = 0.1


def convolution(dtype, images, channels, side):
    # Without padding, whose products with zeros need not be computed.
    x = torch.randn(images, channels, side + 2, side + 2)
    weight = torch.randn(channels, channels, 3, 3)
    x, weight = (t.to(dtype=dtype, memory_format=torch.channels_last) for t in (x, weight))
    name = f"3 × 3 convolution, {images} × {side} × {side} px, {channels} channels"
    return name, 2 * 9 * images * side**2 * channels**2, lambda: conv2d(x, weight)


def matrix_product(dtype, side):
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return f"matrix product, {side} × {side}", 2 * side**3, lambda: a @ b


def fastest(call, seconds):
    """Seconds of the fastest call, after one that warms up."""
    call()
    least, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        least = min(least, now - start)
        if now >= end:
            return least


def peak(dtype, seconds):
    best = {"speed": 0.0, "by": ""}
    for kind, sizes in [(convolution, CONVOLUTIONS), (matrix_product, MATRICES)]:
        for size in sizes:
            name, operations, call = kind(dtype, *size)
            took = fastest(call, seconds)
            best = max(best, {"speed": operations / took, "by": name}, key=lambda it: it["speed"])
            if took > LONG:
                break
    return best


def main():
    threads, seconds = int(sys.argv[1]), float(sys.argv[2])
    torch.set_num_threads(threads)
    with torch.inference_mode():
        peaks = {name: peak(getattr(torch, name), seconds) for name in ("float32", "bfloat16")}
    print(json.dumps(peaks))


main()
