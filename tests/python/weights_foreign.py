"""Writes to the folder argv[1] weight files as other people's code makes them,
the values they hold (`expected.safetensors`), and the tensor names and shapes
of published models (`names.json`)."""

import argparse
import collections
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision

folder = Path(sys.argv[1])
torch.manual_seed(0)


class Net(torch.nn.Module):
    """Every kind of entry that a state dict has."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.bn1(self.conv1(x)).mean((2, 3)))


net = Net()
optimizer = torch.optim.AdamW(net.parameters())
net(torch.randn(2, 3, 8, 8)).sum().backward()
optimizer.step()
state = net.state_dict()
safetensors.torch.save_file(state, folder / "expected.safetensors")


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def save(name, value, **options):
    torch.save(value, folder / name, **options)


training = {
    "epoch": 3,
    "arch": "net",
    "args": argparse.Namespace(lr=0.1),
    "optimizer": optimizer.state_dict(),
    "lr_scheduler": {"base": torch.tensor(1.0)},
}
save("bare.pth", state)
save("model.pth", {"model": state, **training})
save("state_dict.pth", {"state_dict": state, **training})
save("module.pth", {"module": state, **training})
save("twice.pth", {"state_dict": {"model": state}, **training})
save("ddp.pth", {"state_dict": prefixed("module."), **training})
save("ema.pth", {"state_dict": state, "state_dict_ema": {k: v + 1 for k, v in state.items()}})
save(
    "lightning.ckpt",
    {
        "epoch": 3,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": prefixed("model.backbone."),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"Best": {"score": torch.tensor(0.5)}},
        "hyper_parameters": {"lr": 0.1},
    },
)
# What the official SparK pretraining leaves: encoder, decoder, and its settings.
decoder = {"dense_decoder.proj.bias": torch.ones(3), "mask_tokens.0": torch.ones(1, 4, 1, 1)}
save(
    "spark.pth",
    {
        "module": {
            **prefixed("sparse_encoder.sp_cnn."),
            **decoder,
            "imn_m": torch.zeros(1, 3, 1, 1),
            "config": {"mask_ratio": 0.6, "arch": "net"},
        },
        **training,
    },
)
save("legacy.pth", {"state_dict": state, **training}, _use_new_zipfile_serialization=False)
save("protocol4.pth", state, pickle_protocol=4)
save("whole_model.pth", net)
save("only_optimizer.pth", {"optimizer": optimizer.state_dict()})
save("bf16.pth", {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()})
save("half.pth", {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
torch.jit.script(net).save(folder / "script.pt")

# Tensors that share, skip and reorder storage.
base = torch.arange(24.0).reshape(2, 3, 4)
views = {
    "transposed": base.permute(2, 0, 1),
    "part": base[:, 1:, ::2],
    "channels_last": base[None].contiguous(memory_format=torch.channels_last),
    "expanded": torch.tensor([5.0]).expand(3, 2),
    "parameter": torch.nn.Parameter(base[0]),
}
save("views.pth", views)
contiguous = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in views.items()}
safetensors.torch.save_file(contiguous, folder / "views.safetensors")

# detectron2's kind of pickle, as each protocol and numpy layout writes it.
arrays = {name: tensor.numpy() for name, tensor in state.items()}
for protocol in range(2, 6):
    content = {
        "model": collections.OrderedDict(arrays) if protocol % 2 else arrays,
        "__author__": "Model Zoo",
        "matching_heuristics": True,
        "best": np.float64(0.5),
        "optimizer": {"momentum": np.zeros(3)},
    }
    with open(folder / f"protocol{protocol}.pkl", "wb") as file:
        pickle.dump(content, file, protocol)
numbers = np.arange(24.0).reshape(2, 3, 4)
layouts = {
    "fortran": np.asfortranarray(numbers),
    "big": numbers.astype(">f4"),
    "strided": numbers[:, ::2],
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(7, np.int64),
    **{t: numbers.astype(t) for t in "f2 f4 f8 i1 i2 i4 i8 u1 ?".split()},
}
for protocol in (2, 5):
    with open(folder / f"layouts{protocol}.pkl", "wb") as file:
        pickle.dump(layouts, file, protocol)
native = {k: np.ascontiguousarray(v.astype(v.dtype.newbyteorder("="))) for k, v in layouts.items()}
native["scalar"] = native["scalar"].reshape(())
safetensors.torch.save_file(
    {k: torch.from_numpy(v) for k, v in native.items()}, folder / "layouts.safetensors"
)
with open(folder / "objects.pkl", "wb") as file:
    pickle.dump({"w": np.array(["text", None], dtype=object)}, file)


def shapes(model):
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


# torchvision's RegNet computes its widths by tensors, which the meta device cannot.
regnet = shapes(torchvision.models.regnet_y_1_6gf())
# On the meta device a model has names and shapes, but no numbers to draw.
models = (
    "resnet18 resnet34 resnet50 resnet101 resnet152 resnet200 resnext50_32x4d resnext101_32x8d "
    "wide_resnet50_2 wide_resnet101_2 convnext_atto convnext_femto convnext_pico convnext_nano "
    "convnext_tiny convnext_small convnext_base convnext_large regnety_016 regnety_032 regnety_040 "
    "regnety_080 regnety_120 regnety_160 regnety_320"
).split()
with torch.device("meta"):
    names = {
        "timm": {name: shapes(timm.create_model(name)) for name in models},
        "timm_features": {
            name: shapes(timm.create_model(name, features_only=True))
            for name in ("resnet50", "convnext_tiny", "regnety_016")
        },
        "torchvision": {
            "resnet50": shapes(torchvision.models.resnet50()),
            "convnext_tiny": shapes(torchvision.models.convnext_tiny()),
            "regnety_016": regnet,
        },
    }
    # What nn.Sequential(*model.children()) calls each tensor, and what the model does.
    for library, model in (
        (torchvision.models, "resnet50"),
        (torchvision.models, "convnext_tiny"),
        (timm, "resnet18"),
        (timm, "convnext_tiny"),
    ):
        make = getattr(library, model, None) or (lambda: timm.create_model(model))
        whole = make()
        apart = torch.nn.Sequential(*list(whole.children())[:-1])
        known = {id(t): name for name, t in whole.state_dict(keep_vars=True).items()}
        tensors = apart.state_dict(keep_vars=True).items()
        library = library.__name__.split(".")[0]
        names[f"children of {library}'s {model}"] = {name: known[id(t)] for name, t in tensors}
(folder / "names.json").write_text(json.dumps(names))

# First convolutions as timm converts them.
adapted = {}
for channels, dtype in ((3, torch.float32), (3, torch.float16), (2, torch.float32)):
    weight = torch.randn(4, channels, 3, 3).to(dtype)
    for target in (1, 2, 4, 5, 7, 12) if channels == 3 else (1,):
        key = f"{channels} {target} {dtype}"
        adapted[f"{key} from"] = weight
        adapted[f"{key} into"] = timm.models.adapt_input_conv(target, weight)
safetensors.torch.save_file({k: v.clone() for k, v in adapted.items()}, folder / "adapted.safetensors")
