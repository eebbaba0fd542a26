"""What torchvision, pycocotools and plain torch make of the same operands.

Usage: detection_ops.py FOLDER. Reads cases.json and operands.safetensors there,
writes results.safetensors: result `CASE.NAME` from operands `CASE.NAME`."""

import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from safetensors.torch import load_file, save_file
from torchvision import ops
from torchvision.models.detection import _utils, anchor_utils, roi_heads
from torchvision.models.detection.image_list import ImageList

OUT = pathlib.Path(sys.argv[1])


def roi_align(given, output, scale, ratio, aligned):
    features = given["features"].requires_grad_()
    pooled = ops.roi_align(features, given["rois"], tuple(output), scale, ratio, aligned)
    pooled.backward(given["upstream"])
    return dict(pooled=pooled.detach(), gradient=features.grad)


def nms(given, threshold):
    return dict(kept=ops.nms(given["boxes"], given["scores"], threshold))


def batched_nms(given, threshold):
    """Equal scores in their order: torchvision leaves it open for more than 1000 boxes."""
    scores = given["scores"]
    kept = ops.batched_nms(given["boxes"], scores, given["classes"], threshold).sort().values
    return dict(kept=kept[scores[kept].sort(descending=True, stable=True).indices])


def box_coder(given, weights):
    coder = _utils.BoxCoder(tuple(weights))
    deltas = coder.encode_single(given["targets"], given["sources"])
    boxes = coder.decode_single(given["deltas"], given["sources"])
    return dict(deltas=deltas, boxes=boxes)


def matcher(given, low, high, low_quality):
    """Index and label: below is background (0), between is neither (-1)."""
    found = _utils.Matcher(high, low, low_quality)(given["iou"])
    label = torch.where(found >= 0, 1, torch.where(found == -1, 0, -1))
    return dict(label=label, object=found)


def anchors(given, sizes, ratios, image, maps):
    generator = anchor_utils.AnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(maps))
    images = ImageList(torch.zeros(1, 3, *image), [tuple(image)])
    features = [torch.zeros(1, 1, *size) for size in maps]
    return dict(anchors=generator(images, features)[0])


def boxes(given, size, shortest):
    some, others = given["some"], given["others"]
    return dict(
        iou=ops.box_iou(some, others),
        area=ops.box_area(some),
        clipped=ops.clip_boxes_to_image(some, tuple(size)),
        large=ops.remove_small_boxes(some, shortest),
    )


def paste_torchvision(given, size):
    pasted = roi_heads.paste_masks_in_image(given["masks"], given["boxes"], tuple(size))
    return dict(probability=pasted[:, 0].contiguous())


def paste_looked_up(given, size):
    """Every pixel's centre, in the box's coordinates from -1 to 1, looked up in the mask."""
    height, width = size
    x1, y1, x2, y2 = given["boxes"].split(1, dim=1)
    y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    count = len(given["boxes"])
    grid = torch.stack([x[:, None].expand(count, height, width),
                        y[:, :, None].expand(count, height, width)], dim=3)
    return dict(probability=F.grid_sample(given["masks"], grid, align_corners=False)[:, 0])


def bitmaps(given, side, resized):
    masks = given["masks"].float()[:, None]
    rois = torch.cat([torch.arange(len(masks))[:, None].float(), given["boxes"]], dim=1)
    hard = ops.roi_align(masks, rois, (side, side), 1.0, 0, True)[:, 0]
    soft = roi_heads.project_masks_on_boxes(given["masks"], given["boxes"],
                                            torch.arange(len(masks)), side)
    nearest = F.interpolate(masks, tuple(resized), mode="nearest-exact")[:, 0].to(torch.uint8)
    return dict(hard=hard, soft=soft, nearest=nearest)


def polygons(given, polygons, size, side):
    """Rasterised in the image, and in each box's frame."""
    def rasterize(parts, height, width):
        return coco.decode(coco.merge(coco.frPyObjects(parts, height, width)))

    whole = [rasterize(parts, *size) for parts in polygons]
    cut = []
    for parts, box in zip(polygons, given["boxes"].double().numpy()):
        scale = side / np.maximum(box[2:] - box[:2], 0.1)
        moved = [((np.reshape(part, (-1, 2)) - box[:2]) * scale).ravel().tolist() for part in parts]
        cut.append(rasterize(moved, side, side))
    stacked = dict(whole=np.stack(whole), cut=np.stack(cut))
    return {name: torch.from_numpy(np.ascontiguousarray(masks)) for name, masks in stacked.items()}


operands = load_file(OUT / "operands.safetensors")
results = {}
for case in json.loads((OUT / "cases.json").read_text()):
    name, check = case.pop("name"), case.pop("check")
    given = {key.removeprefix(f"{name}."): tensor for key, tensor in operands.items()
             if key.startswith(f"{name}.")}
    for key, tensor in globals()[check](given, **case).items():
        results[f"{name}.{key}"] = tensor.contiguous()
save_file(results, OUT / "results.safetensors")
