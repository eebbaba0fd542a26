"""What pycocotools and Pillow make of a data set: FOLDER OUT SHORT MAX, JSON on standard output.

For every annotation of FOLDER/annotations/instances_train.json: pixels and box of its mask. For
every image: its size by detectron2's ResizeShortestEdge, with the picture's bytes after Pillow's
bilinear resize, and those of every mask given pixel by pixel after Pillow's nearest one, in OUT.

Without arguments: a folder with photographs.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO


def shortest_edge(height, width, short, longest):
    """detectron2.data.transforms.ResizeShortestEdge.get_output_shape, from its description."""
    scale = short / min(height, width)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def main():
    folder, to = sys.argv[1], pathlib.Path(sys.argv[2])
    short, longest = int(sys.argv[3]), int(sys.argv[4])
    sys.stdout, out = sys.stderr, sys.stdout
    coco = COCO(f"{folder}/annotations/instances_train.json")
    images = []
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        height, width = shortest_edge(image["height"], image["width"], short, longest)
        with Image.open(f"{folder}/train/{image['file_name']}") as picture:
            resized = picture.convert("RGB").resize((width, height), Image.BILINEAR)
        objects = []
        for annotation in coco.loadAnns(coco.getAnnIds([image["id"]], iscrowd=False)):
            mask = coco.annToMask(annotation)
            one = {
                "class": sorted(coco.getCatIds()).index(annotation["category_id"]),
                "area": int(mask.sum()),
                "box": masks.toBbox(coco.annToRLE(annotation)).tolist(),
                "stated": annotation["area"],
            }
            if isinstance(annotation["segmentation"], dict):
                small = Image.fromarray(mask).resize((width, height), Image.NEAREST)
                one["resized"] = f"{annotation['id']}.mask"
                (to / one["resized"]).write_bytes(np.asarray(small).tobytes())
            objects.append(one)
        (to / f"{image['id']}.rgb").write_bytes(resized.tobytes())
        images.append({"id": image["id"], "size": [height, width], "objects": objects})
    json.dump(images, out)


if len(sys.argv) == 1:
    package = pathlib.Path(importlib.util.find_spec("sklearn").origin).parent
    print(package / "datasets" / "images")
else:
    main()
