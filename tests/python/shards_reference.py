"""WebDataset as a second reader and writer of shards.

Usage: shards_reference.py FOLDER. Writes shards of its own into FOLDER/theirs and what is in them
to FOLDER/manifest.json; with FOLDER/ours, a set of class folders' shards, says there what it reads
of those, too."""

import hashlib
import io
import json
import pathlib
import sys

import numpy as np
import torch
import webdataset as wds
from PIL import Image

OUT = pathlib.Path(sys.argv[1])


def encoded(number, form):
    pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def theirs():
    """What its own writer makes: a jpg, a class and a dictionary a sample."""
    (OUT / "theirs").mkdir()
    written = []
    with wds.ShardWriter(str(OUT / "theirs" / "x-%06d.tar"), maxcount=4, verbose=0) as sink:
        for number in range(10):
            form, extension = [("JPEG", "jpg"), ("PNG", "png")][number % 2]
            image = encoded(number, form)
            key = f"train/{number:04d}"
            sink.write({"__key__": key, extension: image, "cls": number % 3, "json": {"number": number}})
            written.append([f"{key}.{extension}", hashlib.sha256(image).hexdigest()])
    return written


def ours():
    shards = sorted(str(path) for path in (OUT / "ours").glob("*.tar"))
    raw = wds.WebDataset(shards, shardshuffle=False)
    files = [
        [f"{sample['__key__']}.{extension}", hashlib.sha256(sample[extension]).hexdigest(), int(sample["cls"])]
        for sample in raw
        for extension in ("jpg", "png")
        if extension in sample
    ]
    # As it is trained from: decoded, as tensors, in batches, by worker processes.
    decoded = (
        wds.WebDataset(shards, shardshuffle=False, empty_check=False)
        .decode("torchrgb")
        .to_tuple("jpg;png", "cls")
        .map_tuple(lambda image: image[:, :32, :32], lambda label: label)
    )
    loader = torch.utils.data.DataLoader(decoded, batch_size=4, num_workers=2)
    batches = [[list(images.shape[1:]), labels.tolist()] for images, labels in loader]
    labels = sorted(label for _, labels in batches for label in labels)
    return {"files": files, "labels": labels, "shapes": [shape for shape, _ in batches]}


manifest = {"theirs": theirs()}
if (OUT / "ours").exists():
    manifest["ours"] = ours()
(OUT / "manifest.json").write_text(json.dumps(manifest))
