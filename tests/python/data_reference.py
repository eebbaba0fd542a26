"""What Pillow and torchvision make of the same files: decoding, resized crops,
whole transforms, and the boxes that random crops draw.

Usage: data_reference.py FOLDER. Writes images, raw arrays and manifest.json there."""

import json
import math
import pathlib
import sys

import numpy as np
import skimage
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

OUT = pathlib.Path(sys.argv[1])
PHOTOS = pathlib.Path(skimage.__file__).parent / "data"
FILTERS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def raw(array, name):
    (OUT / name).write_bytes(np.ascontiguousarray(array).tobytes())
    return name


def photo(name):
    return Image.open(PHOTOS / name)


def decoding():
    """(file, channels, expected samples) of every kind of file that Pillow can write."""
    rgb = photo("astronaut.png").convert("RGB").crop((100, 20, 401, 223))  # odd sides
    rgba = rgb.copy()
    rgba.putalpha(photo("camera.png").convert("L").crop((0, 0, 301, 203)))
    palette = rgb.quantize(64)
    clear = rgb.quantize(64)
    clear.info["transparency"] = 3
    exif = Image.Exif()
    kinds = {
        "444.jpg": (rgb, dict(quality=90, subsampling=0)),
        "422.jpg": (rgb, dict(quality=90, subsampling=1)),
        "420.jpg": (rgb, dict(quality=90, subsampling=2)),
        "progressive.jpg": (rgb, dict(quality=90, progressive=True)),
        "restart.jpg": (rgb, dict(quality=60, restart_marker_rows=1)),
        "grey.jpg": (rgb.convert("L"), dict(quality=90)),
        "cmyk.jpg": (rgb.convert("CMYK"), dict(quality=95)),
        "rgb.png": (rgb, {}),
        "rgba.png": (rgba, {}),
        "grey.png": (rgb.convert("L"), {}),
        "grey_alpha.png": (rgba.convert("LA"), {}),
        "palette.png": (palette, {}),
        "palette_clear.png": (clear, dict(transparency=3)),
        "bits.png": (rgb.convert("1"), {}),
        "lossless.webp": (rgba, dict(lossless=True, exact=True)),
        "lossy.webp": (rgb, dict(quality=90)),
        "rgb.bmp": (rgb, {}),
        "palette.bmp": (palette, {}),
        "grey.bmp": (rgb.convert("L"), {}),
        "bits.bmp": (rgb.convert("1"), {}),
        "rgb.tif": (rgb, {}),
        "lzw.tif": (rgba, dict(compression="tiff_lzw")),
        "deflate.tif": (rgb, dict(compression="tiff_adobe_deflate")),
        "grey.tif": (rgb.convert("L"), {}),
        "grey_alpha.tif": (rgba.convert("LA"), {}),
        "palette.tif": (palette, {}),
        "bits.tif": (rgb.convert("1"), {}),
        "packbits.tif": (palette, dict(compression="packbits")),
    }
    for orientation in range(1, 9):
        exif[0x112] = orientation
        upright = {"quality": 90, "subsampling": 0, "exif": exif.tobytes()}
        kinds[f"turned{orientation}.jpg"] = (rgb, upright)
    kinds["turned.webp"] = (rgb, dict(lossless=True, exif=exif.tobytes()))

    cases = []
    for file, (image, options) in kinds.items():
        image.save(OUT / file, **options)
        decoded = ImageOps.exif_transpose(Image.open(OUT / file))
        for channels, mode in [(1, "L"), (3, "RGB"), (4, "RGBA")]:
            expected = np.asarray(decoded.convert(mode))
            name = raw(expected, f"{file}.{channels}.raw")
            height, width = expected.shape[:2]
            cases.append(dict(file=file, channels=channels, height=height, width=width, raw=name))
    return cases


def truncation():
    """Whether Pillow reads the first bytes of a JPEG file."""
    whole = (OUT / "420.jpg").read_bytes()
    cases = []
    for kept in [len(whole), len(whole) - 2, len(whole) - 50, len(whole) // 2, 300]:
        file = OUT / f"cut{kept}.jpg"
        file.write_bytes(whole[:kept])
        try:
            Image.open(file).convert("RGB")
            readable = True
        except OSError:
            readable = False
        cases.append(dict(file=file.name, readable=readable))
    return cases


def resizing():
    """Photographs cut by fixed boxes (top, left, height, width) and resized."""
    cases = []
    for name in ["astronaut.png", "coffee.png", "chelsea.png", "camera.png"]:
        image = photo(name)
        file = f"photo_{name}"
        image.save(OUT / file)
        width, height = image.size
        boxes = [
            (0, 0, height, width),
            (13, 7, height * 4 // 5, width * 3 // 4),
            (height // 3, width // 3, 57, 91),
            (5, 9, 224, 224),
        ]
        for box in boxes:
            for size in [(224, 224), (64, 96), (300, 290)]:
                for filter_name, mode in FILTERS.items():
                    expected = F.resized_crop(image, *box, list(size), mode)
                    number = len(cases)
                    cases.append(dict(
                        file=file, channels=len(image.getbands()), box=box, size=size,
                        filter=filter_name, raw=raw(np.asarray(expected), f"resized{number}.raw"),
                    ))
    rgba = photo("chelsea.png").convert("RGB")
    rgba.putalpha(photo("camera.png").convert("L").crop((0, 0, *rgba.size)))
    rgba.save(OUT / "photo_rgba.png")
    expected = F.resized_crop(rgba, 3, 4, 200, 260, [96, 96], InterpolationMode.BICUBIC)
    cases.append(dict(file="photo_rgba.png", channels=4, box=(3, 4, 200, 260), size=(96, 96),
                      filter="bicubic", raw=raw(np.asarray(expected), "resized_rgba.raw")))
    return cases


def evaluation():
    """The usual ImageNet evaluation transform, as float32 [C, H, W]."""
    cases = []
    for name in ["astronaut.png", "coffee.png", "chelsea.png"]:
        for short, size in [(256, 224), (73, 64)]:
            transform = transforms.Compose([
                transforms.Resize(short, InterpolationMode.BICUBIC),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ])
            expected = transform(photo(name).convert("RGB")).numpy()
            cases.append(dict(file=f"photo_{name}", short=short, size=size,
                              raw=raw(expected, f"evaluated_{short}_{name}.raw")))
    return cases


def boxes():
    """Mean and standard deviation of what random crops draw."""
    torch.manual_seed(0)
    draws = 8000
    cases = []
    for width, height in [(500, 375), (333, 500), (1000, 100), (90, 600), (7, 5), (640, 480)]:
        image = Image.new("L", (width, height))
        for scale in [(0.67, 1.0), (0.08, 1.0)]:
            drawn = [transforms.RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3))
                     for _ in range(draws)]
            values = np.array([
                [h * w / (height * width), math.log(w / h), top / height, left / width]
                for top, left, h, w in drawn
            ])
            cases.append(dict(width=width, height=height, scale=scale, draws=draws,
                              mean=values.mean(0).tolist(), std=values.std(0).tolist()))
    return cases


manifest = dict(decoding=decoding(), truncation=truncation(), resizing=resizing(),
                evaluation=evaluation(), boxes=boxes())
(OUT / "manifest.json").write_text(json.dumps(manifest))
