"""Fine-tuning steps, logits and figures by timm, for comparison with the crate's.

Reads from the folder argv[1]:
  cases.json            the steps to make, see `step`
  CASE.safetensors      a model's weights under timm's names, float64
  batch.safetensors     images [N, 3, H, W], float64, and labels
  exported/MODEL/       what `classify export` writes
  photos/               photographs
  probe.safetensors     features and classes of two sets
Writes to it:
  steps.safetensors     CASE/{loss.STEP, model.NAME, ema.NAME}
  exported.json         what timm reads of each exported model
  photos.safetensors    MODEL/PHOTO: the logits of an exported model, and PHOTO's
                        transformed image
  foreign/MODEL/        timm's own models, saved as timm saves them
  foreign.safetensors   their logits, and the images
  knn.json              nearest neighbours' classes, and the logistic regression's loss
"""

import json
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import Mixup, create_transform, resolve_data_config
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.models import save_for_hf
from timm.optim import Lamb, create_optimizer_v2
from timm.utils import ModelEmaV3

folder = Path(sys.argv[1])


# ----------------------------------------------------------------- steps


def depth(name, case):
    """The layer of a parameter, and the last layer: the official rule."""
    chunk2, chunk3, blocks2, blocks3 = case["chunks"]
    layers2, layers3 = -(-blocks2 // chunk2), -(-blocks3 // chunk3)
    last = 2 + layers2 + layers3
    if match := re.match(r"layer(\d)\.(\d+)", name):
        stage, block = int(match[1]), int(match[2])
    elif match := re.match(r"stages\.(\d)\.blocks\.(\d+)", name):
        stage, block = int(match[1]) + 1, int(match[2])
    elif match := re.match(r"stages\.(\d)\.downsample", name):
        stage, block = int(match[1]) + 1, 0
    elif name.startswith(("conv1", "bn1", "stem")):
        return 0, last
    else:
        return last + 1, last
    ids = {1: 1, 2: 2 + block // chunk2, 3: 2 + layers2 + block // chunk3, 4: last}
    return ids[stage], last


def groups(model, case):
    for name, parameter in model.named_parameters():
        layer, last = depth(name, case)
        still = parameter.ndim <= 1 or name.endswith(".bias") or "gamma" in name
        yield {
            "params": [parameter],
            "lr": case["lr"] * case["layer_decay"] ** (last + 1 - layer),
            "weight_decay": 0.0 if still else case["weight_decay"],
        }


def mix(images, labels, classes, how):
    """timm's Mixup with the given weight, and box for CutMix."""
    mixup = Mixup(mixup_alpha=1.0, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=classes)
    params = (how["lam"], how["centre"] is not None)
    with mock.patch.object(mixup, "_params_per_batch", return_value=params):
        with mock.patch("timm.data.mixup.np.random.randint", side_effect=how["centre"]):
            return mixup(images.clone(), labels)


def step(case, batch, results):
    model = timm.create_model(case["model"], num_classes=case["classes"], drop_path_rate=0.0)
    model.double().load_state_dict(load_file(folder / f"{case['name']}.safetensors"), strict=True)
    model.train()
    if case["optimizer"] == "lamb":
        optimizer = Lamb(
            list(groups(model, case)),
            betas=(0.9, 0.999),
            bias_correction=False,
            always_adapt=True,
            max_grad_norm=1e7,
        )
        criterion = BinaryCrossEntropy(smoothing=0.1)
    else:
        optimizer = create_optimizer_v2(list(groups(model, case)), opt="adamw", lr=case["lr"])
        criterion = SoftTargetCrossEntropy()
    ema = ModelEmaV3(model, decay=case["ema"])
    for number, how in enumerate(case["mixes"]):
        images, targets = mix(batch["images"], batch["labels"], case["classes"], how)
        loss = criterion(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(model)
        results[f"{case['name']}/loss.{number}"] = loss.detach()
    for kind, state in [("model", model.state_dict()), ("ema", ema.module.state_dict())]:
        for name, value in state.items():
            results[f"{case['name']}/{kind}.{name}"] = value.clone().contiguous()


def steps():
    torch.set_default_dtype(torch.float64)
    batch, results = load_file(folder / "batch.safetensors"), {}
    for case in json.loads((folder / "cases.json").read_text()):
        step(case, batch, results)
    save_file(results, folder / "steps.safetensors")
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- logits


def logits(model, results, name, images):
    transform = create_transform(**resolve_data_config({}, model=model), is_training=False)
    model.eval()
    for photo in sorted((folder / "photos").iterdir()):
        image = transform(Image.open(photo).convert("RGB"))
        images[f"{name}/{photo.name}/image"] = image
        with torch.no_grad():
            results[f"{name}/{photo.name}"] = model(image[None])[0].clone()


def exported():
    told, results = {}, {}
    for path in sorted((folder / "exported").iterdir()):
        model = timm.create_model(f"local-dir:{path}", pretrained=True)
        config = model.pretrained_cfg
        told[path.name] = {
            "classes": model.num_classes,
            "label_names": config["label_names"],
            "input_size": config["input_size"],
            "crop_pct": config["crop_pct"],
            "crop_mode": config["crop_mode"],
            "interpolation": config["interpolation"],
        }
        logits(model, results, path.name, results)
    (folder / "exported.json").write_text(json.dumps(told))
    save_file(results, folder / "photos.safetensors")


def foreign():
    """Models of timm's own with heads whose logits are some units large."""
    results = {}
    for name in ["resnet18", "convnext_tiny"]:
        torch.manual_seed(len(name))
        model = timm.create_model(name, num_classes=1000)
        if name == "resnet18":
            # As torchvision's weights have it.
            model.pretrained_cfg["interpolation"] = "bilinear"
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if key.endswith(("bn2.weight", "bn3.weight")):
                    value.fill_(0.5)
                if key.endswith("gamma"):
                    value.fill_(0.05)
            head = model.get_classifier()
            head.weight.normal_(std=0.2)
            head.bias.normal_(std=0.1)
        model.train()
        names = [f"thing {number}" for number in range(1000)]
        with torch.no_grad():
            # Running statistics of something.
            model(torch.randn(8, 3, 64, 64))
        config = {"num_classes": 1000, "label_names": names}
        save_for_hf(model, folder / "foreign" / name, model_config=config, safe_serialization=True)
        model = timm.create_model(f"local-dir:{folder / 'foreign' / name}", pretrained=True)
        logits(model, results, name, results)
    save_file(results, folder / "foreign.safetensors")


# ---------------------------------------------------------------- probes


def knn(bank, classes, queries, k, temperature, count):
    """As DINO's eval_knn.py."""
    bank, queries = (torch.nn.functional.normalize(x, dim=1) for x in (bank, queries))
    similar, nearest = (queries @ bank.T).topk(k, dim=1)
    votes = torch.zeros(len(queries), count, dtype=bank.dtype)
    votes.scatter_add_(1, classes[nearest], (similar / temperature).exp())
    return votes.argmax(1)


def probes():
    data = load_file(folder / "probe.safetensors")
    bank, classes, queries = data["bank"], data["classes"], data["queries"]
    found = knn(bank, classes, queries, 20, 0.07, 5)
    # The probe's convex problem, by scipy in place of our L-BFGS.
    from scipy.optimize import minimize

    rows = ((bank - bank.mean(0)) / bank.std(0, unbiased=False)).numpy()
    target = torch.nn.functional.one_hot(classes, 5).double().numpy()
    width, l2 = rows.shape[1], 1e-3

    def value(point):
        weight, bias = point[: width * 5].reshape(width, 5), point[width * 5 :]
        scores = rows @ weight + bias
        top = scores.max(1, keepdims=True)
        log = scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True))
        loss = -(log * target).sum() / len(rows) + 0.5 * l2 * (weight**2).sum()
        error = (np.exp(log) - target) / len(rows)
        gradient = np.concatenate([(rows.T @ error + l2 * weight).ravel(), error.sum(0)])
        return loss, gradient

    options = {"maxiter": 2000, "ftol": 1e-16, "gtol": 1e-11}
    best = minimize(value, np.zeros((width + 1) * 5), jac=True, method="L-BFGS-B", options=options)
    result = {"knn": found.tolist(), "loss": float(best.fun)}
    (folder / "knn.json").write_text(json.dumps(result))


steps()
exported()
foreign()
probes()
