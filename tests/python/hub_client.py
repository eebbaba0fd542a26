"""Python's huggingface_hub as the second client of a hub and of its cache.

fetch REPO FILE...: prints where each file lies, after it is fetched if it must be; then what
`huggingface_hub` finds strange in the cache.
features FOLDER REPO: timm's features of FOLDER/images.safetensors through the folder FOLDER/model
and through the hub, into FOLDER/features.safetensors; with `classes` behind, the names of classes.
"""

import json
import sys
from pathlib import Path


def fetch(repo: str, files: list[str]) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    for file in files:
        print(hf_hub_download(repo, file))
    for warning in scan_cache_dir().warnings:
        print(f"warning: {warning}")


def features(folder: Path, repo: str) -> None:
    import timm
    import torch
    from safetensors.torch import load_file, save_file

    images = load_file(folder / "images.safetensors")["images"]
    found = {}
    for way, name in [("local", f"local-dir:{folder / 'model'}"), ("hub", f"hf-hub:{repo}")]:
        model = timm.create_model(name, pretrained=True, features_only=True,
                                  out_indices=(1, 2, 3, 4)).eval()
        with torch.no_grad():
            for level, map_ in enumerate(model(images)):
                found[f"{way}/{level}"] = map_.contiguous()
    save_file(found, folder / "features.safetensors")


def classes(repo: str) -> None:
    import timm

    model = timm.create_model(f"hf-hub:{repo}", pretrained=True)
    print(json.dumps({"classes": model.num_classes, "names": model.pretrained_cfg["label_names"]}))


if __name__ == "__main__":
    task, *words = sys.argv[1:]
    if task == "fetch":
        fetch(words[0], words[1:])
    elif task == "features":
        features(Path(words[0]), words[1])
    else:
        classes(words[0])
