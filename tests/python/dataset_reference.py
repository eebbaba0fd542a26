"""Which classes torchvision's ImageFolder finds, and what tarfile reads, of names and archives as
people have them.

Usage: dataset_reference.py FOLDER. Makes FOLDER/classes and archives in FOLDER, and
FOLDER/manifest.json; names are bytes in hexadecimal."""

import gzip
import io
import json
import lzma
import os
import pathlib
import struct
import sys
import tarfile

from PIL import Image
from torchvision.datasets import ImageFolder

OUT = pathlib.Path(sys.argv[1])

CLASSES = [
    *(name.encode("gbk") for name in ("橙子", "苹果", "葡萄")),
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    "café".encode("latin-1"),
    b"Cat",
    b"cat",
    b"cat ",
    b"cat\\xe9",
    "猫".encode(),
    "\ue000".encode(),
    "\U0001f600".encode(),
    "猫".encode("utf-16-le") + b"\xff",
    b"\xed\xb2\x80",
]


def hexed(name):
    return os.fsencode(name).hex()


def class_folders():
    root = os.fsencode(OUT / "classes")
    for name in CLASSES:
        os.makedirs(os.path.join(root, name))
        for number in range(2):
            with open(os.path.join(root, name, b"%d.png" % number), "wb"):
                pass
    found = ImageFolder(OUT / "classes")
    prefix = str(OUT / "classes") + "/"
    images = [[hexed(path.removeprefix(prefix)), label] for path, label in found.samples]
    return {"classes": [hexed(name) for name in found.classes], "images": images}


def file(name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, io.BytesIO(content)


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, None


LONG = "d" * 120 + "/" + "n" * 150
HARD, SYMBOLIC = tarfile.LNKTYPE, tarfile.SYMTYPE
MEMBERS = [
    link("before.png", "train/a.png", HARD),
    file("train/a.png", b"first"),
    file("./train/./b.png", b"b"),
    file(f"{LONG}.png", b"long"),
    file(os.fsdecode(b"caf\xe9.png"), b"latin"),
    file("notes.txt", b"a png in disguise"),
    link("hard.png", "train/a.png", HARD),
    link("hard-odd.png", "./train//b.png", HARD),
    link("train/beside.png", "a.png", SYMBOLIC),
    link("val/across.png", "../train/a.png", SYMBOLIC),
    link("later.png", "end.png", SYMBOLIC),
    link("chain.png", "train/beside.png", SYMBOLIC),
    link("to-long.png", f"{LONG}.png", SYMBOLIC),
    link("to-text.png", "notes.txt", SYMBOLIC),
    link("broken.png", "nowhere.png", SYMBOLIC),
    link("outside.png", "/etc/passwd.png", SYMBOLIC),
    link("self.png", "self.png", SYMBOLIC),
    link("one.png", "other.png", SYMBOLIC),
    link("other.png", "one.png", SYMBOLIC),
    file("train/a.png", b"second"),
    link("hard-again.png", "train/a.png", HARD),
    file("end.png", b"end"),
]


def archive(form):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for member, content in MEMBERS:
            if content is not None:
                content.seek(0)
            tar.addfile(member, content)
    return packed.getvalue()


FILTERS = [{"id": lzma.FILTER_DELTA, "dist": 4}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
# A frame without data, as pzstd writes.
SKIPPED = b"\x5c\x2a\x4d\x18" + struct.pack("<I", 5) + b"five!"


def zstd(content):
    """A Zstandard frame of `content`: the only strip of a TIFF file of it."""
    file = io.BytesIO()
    Image.frombytes("L", (1, len(content)), content).save(
        file, "TIFF", compression="zstd", tiffinfo={278: len(content)})
    tags = Image.open(file).tag_v2
    (start,), (length,) = tags[273], tags[279]
    return file.getvalue()[start:start + length]


def content(tar, member):
    try:
        return tar.extractfile(member).read().decode()
    except (KeyError, RecursionError):
        return None


def archives():
    gnu, pax = archive(tarfile.GNU_FORMAT), archive(tarfile.PAX_FORMAT)
    half = len(gnu) // 3
    forms = {
        "gnu.tar": gnu,
        "pax.tar": pax,
        "called-otherwise": gnu,
        "gzip.tar": gzip.compress(gnu),
        "gzip.tar.gz": gzip.compress(pax),
        "gzip.TGZ": gzip.compress(gnu),
        "gzip-called-otherwise.bin": gzip.compress(gnu),
        "streams.tar": gzip.compress(gnu[:half]) + gzip.compress(gnu[half:]) + bytes(700),
        "xz.tar": lzma.compress(gnu),
        "xz.tar.xz": lzma.compress(pax, check=lzma.CHECK_SHA256, preset=9),
        "xz.TXZ": lzma.compress(gnu, check=lzma.CHECK_NONE),
        "xz-called-otherwise.bin": lzma.compress(gnu, filters=FILTERS),
        "xz-streams.tar": lzma.compress(gnu[:half]) + lzma.compress(gnu[half:]) + bytes(9),
        "zstd.tar": zstd(gnu),
        "zstd.tar.zst": zstd(pax),
        "zstd.tzst": SKIPPED + zstd(gnu),
        "zstd-called-otherwise.bin": zstd(gnu),
        "zstd-streams.tar": zstd(gnu[:half]) + SKIPPED + zstd(gnu[half:]) + SKIPPED + bytes(9),
    }
    found = []
    for name, packed in forms.items():
        (OUT / name).write_bytes(packed)
        # This tarfile knows no Zstandard.
        plain = io.BytesIO(pax if name == "zstd.tar.zst" else gnu)
        packed = dict(fileobj=plain) if "zstd" in name or "tzst" in name else dict(name=OUT / name)
        with tarfile.open(**packed) as tar:
            members = [m for m in tar.getmembers() if m.name.endswith(".png")]
            read = [[hexed(member.name), content(tar, member)] for member in members]
        found.append({"file": name, "members": read})
    return found


manifest = {"folders": class_folders(), "archives": archives()}
(OUT / "manifest.json").write_text(json.dumps(manifest))
