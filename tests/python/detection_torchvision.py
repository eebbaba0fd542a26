"""torchvision's Mask R-CNN on the weights, images and objects in a folder.

Reads ours.pth and inputs.safetensors; writes outputs.safetensors (detections,
losses, gradient norms), and theirs.pth with theirs.safetensors: a state dict of
torchvision's own initial values, twice.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler


def detector() -> torch.nn.Module:
    """The untrained model; images are taken as they are, masks left in their cells."""
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    model.transform.resize = lambda image, target=None: (image, target)
    model.transform.postprocess = lambda result, sizes, original: result
    return model


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(2)
    inputs = load_file(folder / "inputs.safetensors")
    model = detector()
    model.load_state_dict(torch.load(folder / "ours.pth", weights_only=True), strict=True)
    model.double()
    count = sum(name.startswith("image") for name in inputs)
    images = [inputs[f"image{i}"].double() / 255 for i in range(count)]
    outputs = {}

    model.eval()
    with torch.no_grad():
        for i, found in enumerate(model(images)):
            for key in ("boxes", "scores", "labels", "masks"):
                outputs[f"{i}.{key}"] = found[key].contiguous()

    # Everything is sampled: nothing is left to chance.
    model.train()
    model.rpn.fg_bg_sampler = BalancedPositiveNegativeSampler(10**7, 1.0)
    model.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(10**7, 1.0)
    targets = [
        {
            "boxes": inputs[f"boxes{i}"].double(),
            "labels": inputs[f"classes{i}"] + 1,
            "masks": inputs[f"masks{i}"],
        }
        for i in range(count)
    ]
    losses = model(images, targets)
    for name, loss in losses.items():
        outputs[name] = loss.detach().reshape(1)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        outputs[f"grad.{name}"] = parameter.grad.norm().reshape(1)
    save_file(outputs, folder / "outputs.safetensors")

    torch.manual_seed(1)
    theirs = detector().state_dict()
    torch.save(theirs, folder / "theirs.pth")
    save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, folder / "theirs.safetensors")


if __name__ == "__main__":
    main()
