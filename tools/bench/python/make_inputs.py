"""What duels work on that Python makes best.

make_inputs.py timm MODEL BATCH SIZE FILE         weights of a timm model, and images
make_inputs.py pyramid MODEL FILE.pt2             a timm model's maps of strides 4 to 32
make_inputs.py classifier MODEL FILE.pt2          a timm model
make_inputs.py photographs COUNT WIDTH HEIGHT FOLDER   JPEG files
"""

import importlib.util
import os
import random
import sys
from pathlib import Path

# Colour photographs: package and path in it.
PHOTOGRAPHS = [
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
]


def timm_model(name, batch, size, path):
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    # As after training: blocks that do something, statistics of some data.
    for key, tensor in model.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif key.endswith("gamma") or (".bn" in key and key.endswith("weight")):
            tensor.uniform_(0.2, 0.6)
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path / "weights.safetensors")
    images = torch.randn(int(batch), 3, int(size), int(size))
    safetensors.torch.save_file({"images": images}, path / "images.safetensors")


def pyramid(name, path):
    import masked_timm

    export(masked_timm.pyramid(name), path)


def classifier(name, path):
    import timm

    export(timm.create_model(name), path)


def export(network, path):
    import torch

    program = torch.export.export(network.train(), (torch.randn(2, 3, 224, 224),))
    torch.export.save(program, path)


def photographs(count, width, height, path):
    from PIL import Image

    width, height = int(width), int(height)
    draw = random.Random(0)
    for number in range(int(count)):
        package, name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
        folder = importlib.util.find_spec(package).submodule_search_locations[0]
        image = Image.open(Path(folder) / name).convert("RGB")
        # The largest part of the photograph's shape, cut down by up to a third.
        share = draw.uniform(0.67, 1)
        scale = share * min(image.width / width, image.height / height)
        cut = (width * scale, height * scale)
        left = draw.uniform(0, image.width - cut[0])
        top = draw.uniform(0, image.height - cut[1])
        box = (left, top, left + cut[0], top + cut[1])
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        image.save(path / f"{number:02}.jpg", quality=90, subsampling="4:2:0")


def main():
    kinds = {
        "timm": timm_model,
        "pyramid": pyramid,
        "classifier": classifier,
        "photographs": photographs,
    }
    kind, *arguments, target = sys.argv[1:]
    # Whole or not at all: a run may be cut short.
    target = Path(target)
    part = target.with_name(f"part{os.getpid()}-{target.name}")
    if target.suffix != ".pt2":
        part.mkdir()
    kinds[kind](*arguments, part)
    part.rename(target)


main()
