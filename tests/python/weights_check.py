"""Reads the files that the crate wrote to the folder argv[1] with the
frameworks they are meant for, and compares every number."""

import pickle
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision

folder = Path(sys.argv[1])


def same(found, expected, what):
    assert list(found) == list(expected), f"{what}: {list(found)} but {list(expected)}"
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, f"{what} {name}: {found[name].dtype}"
        assert found[name].shape == tensor.shape, f"{what} {name}: {found[name].shape}"
        assert torch.equal(found[name], tensor), f"{what} {name}"


expected = {
    "a_float64": torch.tensor([[0.0, 1.0, 2.5], [3.0, 100.0, -1.0]], dtype=torch.float64),
    "b_empty": torch.zeros(0, 4),
    "c_scalar": torch.tensor(2**40),
}
for dtype in ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"):
    expected[f"d_{dtype}"] = torch.tensor([0.0, 1.0, 2.5]).to(getattr(torch, dtype))
expected = dict(sorted(expected.items()))

same(torch.load(folder / "ours.pth", weights_only=True), expected, "pth")
same(torch.load(folder / "ours.pth", weights_only=True, mmap=True), expected, "mmapped pth")
ours = safetensors.torch.load_file(folder / "ours.safetensors")
same({name: ours[name] for name in expected}, expected, "safetensors")

for encoding in ("ASCII", "latin1"):  # the second is what detectron2 passes
    with open(folder / "ours.pkl", "rb") as file:
        content = pickle.load(file, encoding=encoding)
    assert set(content) == {"model", "__author__", "matching_heuristics"}
    assert content["matching_heuristics"] is True
    assert all(type(array) is np.ndarray for array in content["model"].values())
    arrays = {name: torch.from_numpy(array.copy()) for name, array in content["model"].items()}
    wide = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in expected.items()}
    same(arrays, wide, "pkl")

# timm: strict keys, whole and as a feature extractor, with a classifier and
# with other than three channels.
for name in (
    "resnet18", "convnext_tiny", "regnety_016", "resnet18_classes", "convnext_tiny_four"
):
    source = safetensors.torch.load_file(folder / name / "model.safetensors")
    model = timm.create_model(f"local-dir:{folder / name}", pretrained=True)
    missing = set(model.state_dict()) ^ set(source)
    assert not missing, f"{name}: {sorted(missing)[:5]}"
    same(model.state_dict(), {key: source[key] for key in model.state_dict()}, name)
    assert model.num_classes == (10 if "classes" in name else 0), name
    channels = 4 if "four" in name else 3
    assert model.pretrained_cfg["input_size"][0] == channels
    assert list(model.pretrained_cfg["mean"]) == [0.25] * channels
    features = timm.create_model(f"local-dir:{folder / name}", pretrained=True, features_only=True)
    loaded = {key.replace("stem_", "stem.").replace("stages_", "stages."): tensor
              for key, tensor in features.state_dict().items()}
    assert len(loaded) > 100, name
    for key, tensor in loaded.items():
        assert torch.equal(tensor, source[key]), f"{name} {key}"
    maps = features.eval()(torch.zeros(1, channels, 64, 64))
    assert maps[-1].shape[-1] == 2, name

# torchvision: strict keys.
for name, theirs in (
    ("resnet50", "resnet50"),
    ("convnext_tiny", "convnext_tiny"),
    ("regnety_016", "regnet_y_1_6gf"),
):
    state = torch.load(folder / f"torchvision_{name}.pth", weights_only=True)
    model = getattr(torchvision.models, theirs)()
    model.load_state_dict(state, strict=True)
    same(model.state_dict(), {key: state[key] for key in model.state_dict()}, name)
print("ok")
