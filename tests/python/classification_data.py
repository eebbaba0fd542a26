"""What torchvision's, timm's and Pillow's augmentations make of the same pixels.

Usage: classification_data.py FOLDER. Writes raw arrays and manifest.json there."""

import json
import math
import pathlib
import random
import sys
import types
from collections import defaultdict

import numpy as np
import skimage
import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data import mixup as timm_mixup
from timm.data import random_erasing
from timm.data.distributed_sampler import RepeatAugSampler
from torchvision.transforms import InterpolationMode, TrivialAugmentWide
from torchvision.transforms import autoaugment as trivial

OUT = pathlib.Path(sys.argv[1])
PHOTOS = pathlib.Path(skimage.__file__).parent / "data"
torch.manual_seed(0)
random.seed(0)


def raw(array, name):
    (OUT / name).write_bytes(np.ascontiguousarray(array).tobytes())
    return name


def photo(name):
    return Image.open(PHOTOS / name).convert("RGB")


def pictures():
    """Pictures of a few kilobytes: even and odd sides, few levels, one level, hardly any pixels."""
    flat = np.asarray(photo("coffee.png").crop((200, 100, 264, 148))) // 3 + 60
    flat[..., 2] = 77
    return {
        "square": photo("astronaut.png").crop((150, 50, 246, 146)),
        "odd": photo("chelsea.png").crop((100, 80, 201, 155)),
        "flat": Image.fromarray(flat.astype(np.uint8)),
        "tiny": photo("astronaut.png").crop((200, 100, 202, 107)),
    }


PICTURES = pictures()


def operations():
    """TrivialAugmentWide's 14 operations, by their number and magnitude bin."""
    space = TrivialAugmentWide()._augmentation_space(31)
    cases = []
    for number, (name, (magnitudes, signed)) in enumerate(space.items()):
        bins = [0, 1, 3, 7, 10, 15, 20, 22, 26, 29, 30] if magnitudes.ndim else [0]
        for bin in bins:
            # linspace in float32 has 15.999999 for 16 on some processors, of which int() makes 15.
            magnitude = round(float(magnitudes[bin] if magnitudes.ndim else magnitudes), 5)
            for negative in [False, True] if signed else [False]:
                for picture, image in PICTURES.items():
                    out = trivial._apply_op(image, name, -magnitude if negative else magnitude,
                                            InterpolationMode.BICUBIC, None)
                    file = raw(np.asarray(out), f"trivial{len(cases)}.raw")
                    cases.append(dict(name=name, number=number, bin=bin, negative=negative,
                                      picture=picture, raw=file))
    return cases


def trivial_draws():
    """What TrivialAugmentWide draws: how often each operation, with which magnitudes."""
    drawn, applied = defaultdict(list), trivial._apply_op
    trivial._apply_op = lambda image, name, magnitude, **_: drawn[name].append(magnitude)
    transform = TrivialAugmentWide(interpolation=InterpolationMode.BICUBIC)
    for _ in range(14_000):
        transform(PICTURES["tiny"])
    trivial._apply_op = applied
    return [dict(name=name, magnitudes=magnitudes) for name, magnitudes in drawn.items()]


def policy():
    """timm's v0 as create_transform makes it at 384 pixels: its table, and each distinct step."""
    transform = create_transform(384, is_training=True, auto_augment="v0", interpolation="bicubic")
    [augment] = [t for t in transform.transforms if isinstance(t, auto_augment.AutoAugment)]
    table = [[(op.name, op.prob, op.magnitude) for op in pair] for pair in augment.policy]
    steps = {(op.name, op.magnitude): op for pair in augment.policy for op in pair}
    [fill] = {op.kwargs["fillcolor"] for op in steps.values()}
    assert {op.kwargs["resample"] for op in steps.values()} == {Image.Resampling.BICUBIC}

    cases = []
    for (name, level), op in steps.items():
        op.prob = 1.0
        for negative in [False, True]:
            auto_augment.random = types.SimpleNamespace(random=lambda: 0.9 if negative else 0.1)
            for picture, image in PICTURES.items():
                case = dict(name=name, level=level, negative=negative, picture=picture)
                try:
                    case["raw"] = raw(np.asarray(op(image)), f"auto{len(cases)}.raw")
                except ValueError as error:
                    case["error"] = str(error)
                cases.append(case)
    auto_augment.random = random
    return dict(table=table, fill=fill, steps=cases)


def erasing():
    """How often timm's RandomErasing erases, and the boxes it draws."""
    cases, draws = [], 4000
    get_pixels = random_erasing._get_pixels
    random_erasing._get_pixels = lambda _, __, size, dtype, device: torch.ones(size)
    for height, width in [(48, 64), (96, 96), (12, 160)]:
        often = random_erasing.RandomErasing(0.25, mode="pixel", device="cpu")
        erased = sum(bool(often(torch.zeros(1, height, width)).any()) for _ in range(draws))
        always = random_erasing.RandomErasing(1.0, mode="pixel", device="cpu")
        values = []
        for _ in range(draws):
            rows, columns = always(torch.zeros(1, height, width))[0].nonzero(as_tuple=True)
            if len(rows):
                top, left = rows.min().item(), columns.min().item()
                h, w = rows.max().item() + 1 - top, columns.max().item() + 1 - left
                values.append([h * w / (height * width), math.log(h / w),
                               top / height, left / width])
        values = np.array(values)
        cases.append(dict(height=height, width=width, draws=draws, erased=erased,
                          boxes=len(values), mean=values.mean(0).tolist(),
                          std=values.std(0).tolist()))
    random_erasing._get_pixels = get_pixels
    return cases


def mixing():
    """timm's Mixup in float64 with given weights and, for CutMix, centres."""
    torch.set_default_dtype(torch.float64)
    images, labels, classes = torch.randn(6, 3, 20, 28), [4, 0, 6, 2, 2, 5], 7
    cases = []
    settings = [(0.37, None), (0.91, None), (1.0, None)] + [
        (lam, centre)
        for lam in [0.02, 0.3, 0.55, 0.999]
        for centre in [(10, 14), (0, 0), (19, 27), (3, 20)]
    ]
    for lam, centre in settings:
        mixup = timm_mixup.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=classes)
        mixup._params_per_batch = lambda: (lam, centre is not None)
        given, randint = iter(centre or ()), np.random.randint
        np.random.randint = lambda *_, **__: next(given)
        mixed, targets = mixup(images.clone(), torch.tensor(labels))
        np.random.randint = randint
        number = len(cases)
        cases.append(dict(lam=lam, centre=centre, images=raw(mixed, f"mixed{number}.raw"),
                          targets=raw(targets, f"targets{number}.raw")))
    torch.set_default_dtype(torch.float32)
    return dict(images=raw(images, "unmixed.raw"), shape=list(images.shape), labels=labels,
                classes=classes, smoothing=0.1, cases=cases)


def evaluation():
    """timm's evaluation transforms: 95 % of the short side, and everything squashed."""
    photos = {name: photo(name) for name in ["astronaut.png", "coffee.png", "chelsea.png"]}
    photos["rocket.png"] = photo("rocket.jpg")
    photos["small.png"] = photo("coffee.png").resize((150, 101))
    cases = []
    for name, image in photos.items():
        image.save(OUT / name)
        for size, crop_pct, mode in [(224, 0.95, "center"), (384, 1.0, "squash")]:
            transform = create_transform(size, is_training=False, crop_pct=crop_pct,
                                         crop_mode=mode, interpolation="bicubic")
            number = len(cases)
            cases.append(dict(file=name, size=size, crop_pct=crop_pct, mode=mode,
                              raw=raw(transform(image), f"evaluated{number}.raw")))
    return cases


def repeats():
    """RepeatAugSampler's indices, and the permutation they are made of."""
    cases = []
    for length, ranks, repeat in [(600, 1, 3), (600, 2, 3), (100, 3, 3), (515, 2, 2)]:
        data, epoch = range(length), 4
        permutation = torch.randperm(length, generator=torch.Generator().manual_seed(epoch))
        streams = []
        for rank in range(ranks):
            sampler = RepeatAugSampler(data, ranks, rank, num_repeats=repeat)
            sampler.set_epoch(epoch)
            streams.append(list(sampler))
        cases.append(dict(length=length, repeats=repeat, permutation=permutation.tolist(),
                          streams=streams))
    return cases


manifest = dict(
    pictures={
        name: dict(width=image.width, height=image.height, raw=raw(np.asarray(image), name))
        for name, image in PICTURES.items()
    },
    operations=operations(), trivial_draws=trivial_draws(), policy=policy(), erasing=erasing(),
    mixing=mixing(), evaluation=evaluation(), repeats=repeats(),
)
(OUT / "manifest.json").write_text(json.dumps(manifest))
