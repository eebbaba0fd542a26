"""Makes a labelled image set out of emoji: `python3 emoji_data.py FOLDER`.

Four vendors' drawings of some 1,800 emoji, 64 pixels wide, from their npm packages (`npm` must be
there), in the classes that Unicode sorts them into: faces, animals, food, flags, …

    unlabelled/                every drawing of the emoji that are not validation's
    train/CLASS/, val/CLASS/   those of a few emoji a class, and of those held out

No emoji is in both `val` and the rest, whoever drew it. The split depends on the names alone.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tarfile
import zlib

VENDORS = ("apple", "google", "twitter", "facebook")
VERSION = "16.0.0"
# Emoji a class with labels, and the share of all that is held out.
LABELLED = 25
HELD_OUT = 0.2


def main(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    counts = collections.Counter()
    for vendor in VENDORS:
        name = f"emoji-datasource-{vendor}"
        archive = folder / f"{name}-{VERSION}.tgz"
        if not archive.exists():
            subprocess.run(["npm", "pack", "-s", f"{name}@{VERSION}"], cwd=folder, check=True)
        with tarfile.open(archive) as tar:
            emoji = json.load(tar.extractfile("package/emoji.json"))
            places = split([e for e in emoji if e["category"] != "Component"])
            for member in tar:
                path = pathlib.PurePosixPath(member.name)
                if path.parent != pathlib.PurePosixPath(f"package/img/{vendor}/64"):
                    continue
                for place in places.get(path.name, ()):
                    target = folder / place / f"{path.stem}-{vendor}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(tar.extractfile(member).read())
                    counts[place.split("/")[0]] += 1
    for place, count in sorted(counts.items()):
        print(f"{count:>6} images in {folder / place}")


def split(emoji: list) -> dict:
    """Where each image belongs."""
    classes = collections.defaultdict(list)
    for one in emoji:
        label = one["category"].split(" ")[0].lower()
        classes[label].append(one["image"])
    places = {}
    for label, images in classes.items():
        # An order that has nothing to do with what they show.
        images = sorted(images, key=lambda name: zlib.crc32(name.encode()))
        held_out = round(HELD_OUT * len(images))
        for position, image in enumerate(images):
            if position < held_out:
                places[image] = [f"val/{label}"]
            elif position < held_out + LABELLED:
                places[image] = ["unlabelled", f"train/{label}"]
            else:
                places[image] = ["unlabelled"]
    return places


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
