"""Checks of the installed package spark_backbone, in one process.

Reads from the folder argv[1]:
  MODEL.safetensors      weights that the Rust test wrote
  features.safetensors   `images`, and Rust's MODEL/LEVEL for them
Leaves there for a C++ program:
  scripted.pt            a TorchScript module around a backbone
  scripted_numbers.pt    its input and the levels it must give
"""

import sys
from pathlib import Path

from package import (  # noqa: F401
    copies,
    errors,
    features,
    from_file,
    layers,
    tools,
    torchvision_fpn,
    training,
)
from package.harness import run

if __name__ == "__main__":
    run(Path(sys.argv[1]))
