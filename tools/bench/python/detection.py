"""torchvision's Mask R-CNN: training steps, or an image to pasted masks."""

import argparse

import safetensors.torch
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

import networks
import operations
import protocol

CLASSES = 91
SCORES = 20
LR = 1e-4
WEIGHT_DECAY = 1e-4
# Ours are detectron2's.
NAMES = {
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_loc",
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
}


def detector(norm):
    """As `maskrcnn_resnet50_fpn` makes it for weights that were pretrained."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=norm, trainable_layers=3
    )
    return MaskRCNN(backbone, num_classes=CLASSES)


def losses(model, images, targets):
    return {NAMES[name]: loss for name, loss in model(images, targets).items()}


def checked_losses(model, images, targets):
    """With everything sampled, so that nothing is left to chance, and few proposals."""
    samplers = model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler
    most = model.rpn._post_nms_top_n["training"]
    everything = BalancedPositiveNegativeSampler(10**7, 1.0)
    model.rpn.fg_bg_sampler = model.roi_heads.fg_bg_sampler = everything
    model.rpn._post_nms_top_n["training"] = 200
    with torch.no_grad():
        found = losses(model, images, targets)
    model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler = samplers
    model.rpn._post_nms_top_n["training"] = most
    return {name: [loss.item()] for name, loss in found.items()}


def infer(model, images, prepared, autocast, memory):
    model.eval()
    with torch.no_grad():
        needed = operations.count(lambda: model(images[:1]))
    prepared(model)

    def round():
        with torch.inference_mode(), autocast:
            (found,) = model(images[:1])
            # As they are told: a pixel is in the mask or not.
            found["masks"] = found["masks"] > 0.5
        return found

    checks = {"scores": round()["scores"][:SCORES].tolist()}
    memory.forget_peak()
    protocol.serve(checks, memory, 1, round, needed)


def train(model, images, targets, prepared, autocast, memory):
    model.train()
    # The size that is fed is the file's.
    model.transform.min_size = (min(images[0].shape[1:]),)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)

    def total():
        return sum(losses(model, images, targets).values())

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = total()
        loss.backward()
        optimizer.step()
        loss.item()

    needed = operations.count(lambda: total().backward())
    prepared(model)
    with autocast:
        checks = checked_losses(model, images, targets)
    step()
    memory.forget_peak()
    protocol.serve(checks, memory, 1, step, needed)


def compiled(model):
    # What of it is of fixed shapes; the rest breaks the graph at every second line.
    model.backbone = torch.compile(model.backbone)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["train", "infer"], required=True)
    arguments = networks.arguments(parser)

    memory = protocol.Memory()
    model = networks.loaded(detector(FrozenBatchNorm2d), arguments.inputs)
    tensors = safetensors.torch.load_file(arguments.inputs / "inputs.safetensors")
    count = sum(name.startswith("image") for name in tensors)
    images = [tensors[f"image{i}"].float() / 255 for i in range(count)]
    targets = [
        {
            "boxes": tensors[f"boxes{i}"],
            "labels": tensors[f"classes{i}"] + 1,
            "masks": tensors[f"masks{i}"],
        }
        for i in range(count)
    ]
    # Once the operations are counted, which happens in eager mode.
    prepared = compiled if arguments.compile else lambda model: None
    autocast = networks.autocast(arguments)
    if arguments.mode == "infer":
        infer(model, images, prepared, autocast, memory)
    else:
        train(model, images, targets, prepared, autocast, memory)


if __name__ == "__main__":
    main()
