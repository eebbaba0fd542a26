"""Photographs as JPEG files of several kinds.

Usage: data_photos.py FOLDER."""

import pathlib
import sys

import skimage
import sklearn
from PIL import Image

OUT = pathlib.Path(sys.argv[1])
PHOTOS = {
    skimage: ["astronaut.png", "chelsea.png", "coffee.png", "gravel.png", "motorcycle_left.png", "retina.jpg"],
    sklearn: ["china.jpg", "flower.jpg"],
}
FOLDERS = {skimage: "data", sklearn: "datasets/images"}
KINDS = {
    "420": dict(subsampling=2),
    "444": dict(subsampling=0),
    "progressive": dict(subsampling=2, progressive=True),
}

for package, names in PHOTOS.items():
    folder = pathlib.Path(package.__file__).parent / FOLDERS[package]
    for name in names:
        photo = Image.open(folder / name).convert("RGB")
        for kind, options in KINDS.items():
            photo.save(OUT / f"{pathlib.Path(name).stem}-{kind}.jpg", quality=90, **options)
