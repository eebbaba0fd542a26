"""Trains torchvision's Mask R-CNN on a backbone of spark_backbone for some steps.

The images are synthetic: bright discs and squares on dark, noisy ground. Losses
are printed; a fresh image with the truth (left) and what was found (right) is
drawn. Exits with 1 if the loss did not fall.

    python torchvision_mask_rcnn.py --output prediction.png
    python torchvision_mask_rcnn.py --model resnet50 --weights r50.safetensors
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from spark_backbone import list_models
from spark_backbone.torchvision import mask_rcnn

CLASSES = ("background", "disc", "square")
COLOURS = ("black", "deepskyblue", "orange")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", choices=list_models(), metavar="NAME",
                        help="timm's name of the backbone [resnet18]")
    parser.add_argument("--weights", metavar="FILE", help="pretrained weights, of any framework")
    parser.add_argument("--steps", type=int, default=60, help="training steps [60]")
    parser.add_argument("--batch", type=int, default=4, help="images a step [4]")
    parser.add_argument("--side", type=int, default=128, help="side of the images, pixels [128]")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="AdamW's [0.001]")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images [0]")
    parser.add_argument("--output", default="mask_rcnn.png", metavar="PNG",
                        help="where to draw [mask_rcnn.png]")
    options = parser.parse_args()
    if options.steps < 2 or options.batch < 1 or options.side < 64:
        parser.error("--steps must be at least 2, --batch 1 and --side 64")
    return options


def scene(side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and its targets: one to three shapes, the later ones in front."""
    image = 0.25 + 0.05 * torch.randn(3, side, side)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    masks, labels = [], []
    for _ in range(int(torch.randint(1, 4, ()))):
        radius = int(torch.randint(side // 10, side // 5, ()))
        centre_x, centre_y = torch.randint(radius, side - radius, (2,)).tolist()
        away_x, away_y = (x - centre_x).abs(), (y - centre_y).abs()
        label = int(torch.randint(1, len(CLASSES), ()))
        if CLASSES[label] == "disc":
            mask = away_x**2 + away_y**2 <= radius**2
        else:
            mask = torch.maximum(away_x, away_y) <= radius
        image[:, mask] = 0.6 + 0.4 * torch.rand(3, 1)
        masks = [other & ~mask for other in masks] + [mask]
        labels.append(label)
    # Shapes that others hide almost wholly are no targets.
    seen = [n for n, mask in enumerate(masks) if mask.sum() >= 50]
    stacked = torch.stack([masks[n] for n in seen])
    target = {
        "boxes": torch.stack([box_around(mask) for mask in stacked]),
        "labels": torch.tensor([labels[n] for n in seen]),
        "masks": stacked.to(torch.uint8),
    }
    return image.clamp(0, 1), target


def box_around(mask: Tensor) -> Tensor:
    """(x1, y1, x2, y2) in pixels."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return torch.stack(
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    ).to(torch.float32)


def train(model: MaskRCNN, options: argparse.Namespace) -> list[float]:
    """The loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    losses = []
    model.train()
    start = time.perf_counter()
    for step in range(options.steps):
        images, targets = zip(*(scene(options.side) for _ in range(options.batch)))
        parts = model(list(images), list(targets))
        loss = sum(parts.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0 or step == options.steps - 1:
            shown = "  ".join(f"{name.removeprefix('loss_')} {v.item():.3f}"
                              for name, v in parts.items())
            seconds = time.perf_counter() - start
            print(f"step {step:3}  {seconds:5.1f} s  loss {losses[-1]:.3f}  {shown}", flush=True)
    return losses


@torch.no_grad()
def draw(model: MaskRCNN, options: argparse.Namespace) -> None:
    """A fresh image: the truth on the left, what the model finds on the right."""
    image, target = scene(options.side)
    (found,) = model.eval()([image])
    sure = found["scores"] > 0.5
    sides = []
    for boxes, labels, masks, scores in (
        (target["boxes"], target["labels"], target["masks"].bool(), None),
        (found["boxes"][sure], found["labels"][sure], found["masks"][sure, 0] > 0.5,
         found["scores"][sure]),
    ):
        colours = [COLOURS[label] for label in labels]
        picture = (255 * image).to(torch.uint8)
        if len(boxes) > 0:
            picture = draw_segmentation_masks(picture, masks, alpha=0.5, colors=colours)
            picture = draw_bounding_boxes(picture, boxes, colors=colours)
        sides.append(picture)
        for n, (label, box) in enumerate(zip(labels, boxes)):
            what = "truth" if scores is None else f"found with {scores[n]:.2f}"
            print(f"{what}: {CLASSES[label]} at {[round(edge) for edge in box.tolist()]}")
    picture = torch.nn.functional.interpolate(torch.cat(sides, 2)[None], scale_factor=3)[0]
    to_pil_image(picture).save(options.output)
    print(f"drawn to {options.output}")


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    model = mask_rcnn(
        options.model,
        options.weights,
        num_classes=len(CLASSES),
        min_size=options.side,
        max_size=options.side,
        rpn_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        box_batch_size_per_image=32,
    )
    losses = train(model, options)
    draw(model, options)
    quarter = max(1, len(losses) // 4)
    first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
    print(f"loss {first:.3f} in the first {quarter} steps, {last:.3f} in the last")
    if last > 0.7 * first:
        sys.exit("the loss did not fall by 30 %: the model has not learned")


if __name__ == "__main__":
    main()
