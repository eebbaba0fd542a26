"""What duels work on that Python makes best.

make_inputs.py timm MODEL BATCH SIZE FILE         weights of a timm model, and images
make_inputs.py pyramid MODEL FILE.pt2             a timm model's maps of strides 4 to 32
make_inputs.py classifier MODEL FILE.pt2          a timm model
make_inputs.py photographs COUNT WIDTH HEIGHT FOLDER   JPEG files
make_inputs.py detector COUNT HEIGHT WIDTH OBJECTS FOLDER   weights of torchvision's Mask R-CNN,
                                                       photographs with so many objects on each
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
    for number, image in enumerate(cut_photographs(int(count), int(width), int(height))):
        image.save(path / f"{number:02}.jpg", quality=90, subsampling="4:2:0")


def cut_photographs(count, width, height):
    from PIL import Image

    draw = random.Random(0)
    for number in range(count):
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
        yield image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def detector(count, height, width, objects, path):
    import numpy
    import safetensors.torch
    import torch

    import detection

    torch.manual_seed(0)
    count, height, width, objects = int(count), int(height), int(width), int(objects)
    tensors, images = {}, []
    for number, image in enumerate(cut_photographs(count, width, height)):
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).contiguous()
        images.append(pixels.float() / 255)
        tensors[f"image{number}"] = pixels
        boxes, classes, masks = drawn_objects(objects, height, width)
        tensors |= {f"boxes{number}": boxes, f"classes{number}": classes}
        tensors[f"masks{number}"] = masks
    safetensors.torch.save_file(tensors, path / "inputs.safetensors")

    # As after training: blocks that do something, statistics of such images, scores that differ.
    model = detection.detector(torch.nn.BatchNorm2d)
    for name, module in model.backbone.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            if name.endswith("bn3"):
                module.weight.data.fill_(0.3)
    with torch.no_grad():
        model.backbone.train()(model.transform(images)[0].tensors)
        model.roi_heads.box_predictor.cls_score.weight *= 8
    counters = "num_batches_tracked"
    state = {k: v.contiguous() for k, v in model.state_dict().items() if counters not in k}
    safetensors.torch.save_file(state, path / "weights.safetensors")


def drawn_objects(count, height, width):
    """Ellipses anywhere, from a tenth to half of the image's sides: boxes, classes, masks."""
    import torch

    size = torch.tensor([width, height])
    side = (torch.rand(count, 2) * 0.4 + 0.1) * size
    low = torch.rand(count, 2) * (size - side)
    centre, radius = low + side / 2, side / 2
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    x, y = ((axis + 0.5 - centre[:, i].view(-1, 1, 1)) / radius[:, i].view(-1, 1, 1)
            for i, axis in enumerate((columns, rows)))
    masks = (x.square() + y.square() < 1).to(torch.uint8)
    return torch.cat([low, low + side], dim=1), torch.randint(0, 90, (count,)), masks


def main():
    kinds = {
        "timm": timm_model,
        "pyramid": pyramid,
        "classifier": classifier,
        "photographs": photographs,
        "detector": detector,
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
