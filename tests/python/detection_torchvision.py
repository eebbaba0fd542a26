"""torchvision's Mask R-CNN on the weights, images and objects in a folder.

Reads ours.pth and inputs.safetensors; writes outputs.safetensors: detections, and
losses with gradient norms once with frozen batch norm in the backbone and once
with plain batch norm (what `maskrcnn_resnet50_fpn(weights=None)` has). Writes
state dicts of torchvision's own initial values, each as .pth and .safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

VARIANTS = ("frozen", "batch")


def detector(norm: str) -> torch.nn.Module:
    """The untrained model; images are taken as they are, masks left in their cells."""
    if norm == "batch":
        model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    else:
        # What the function builds when it is given weights.
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
        )
        model = MaskRCNN(backbone, num_classes=91)
    model.transform.resize = lambda image, target=None: (image, target)
    model.transform.postprocess = lambda result, sizes, original: result
    # Everything is sampled: nothing is left to chance.
    model.rpn.fg_bg_sampler = BalancedPositiveNegativeSampler(10**7, 1.0)
    model.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(10**7, 1.0)
    model.rpn._post_nms_top_n["training"] = 200
    return model


def main() -> None:
    folder = Path(sys.argv[1])
    inputs = load_file(folder / "inputs.safetensors")
    weights = torch.load(folder / "ours.pth", weights_only=True)
    count = sum(name.startswith("image") for name in inputs)
    images = [inputs[f"image{i}"].double() / 255 for i in range(count)]
    targets = [
        {
            "boxes": inputs[f"boxes{i}"].double(),
            "labels": inputs[f"classes{i}"] + 1,
            "masks": inputs[f"masks{i}"],
        }
        for i in range(count)
    ]
    outputs = {}
    for norm in VARIANTS:
        model = detector(norm)
        model.load_state_dict(weights, strict=True)
        model.double()
        if norm == "frozen":
            model.eval()
            with torch.no_grad():
                for i, found in enumerate(model(images)):
                    for key in ("boxes", "scores", "labels", "masks"):
                        outputs[f"{i}.{key}"] = found[key].contiguous()
        model.train()
        losses = model(images, targets)
        for name, loss in losses.items():
            outputs[f"{norm}.{name}"] = loss.detach().reshape(1)
        sum(losses.values()).backward()
        for name, parameter in model.named_parameters():
            outputs[f"{norm}.grad.{name}"] = parameter.grad.norm().reshape(1)
    save_file(outputs, folder / "outputs.safetensors")

    torch.manual_seed(1)
    for norm in VARIANTS:
        theirs = detector(norm).state_dict()
        torch.save(theirs, folder / f"{norm}.pth")
        theirs = {name: tensor.contiguous() for name, tensor in theirs.items()}
        save_file(theirs, folder / f"{norm}.safetensors")


if __name__ == "__main__":
    main()
