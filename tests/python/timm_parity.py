"""Feature maps by timm and torchvision, for comparison with the crate's.

Reads from the folder argv[1]:
  batches.safetensors          images by batch name
  MODEL.timm/, MODEL.FORMAT    what the crate exported, in every format
Writes to it:
  features.safetensors         MODEL/FORMAT/BATCH/LEVEL of what was exported,
                               and timm/MODEL/BATCH/LEVEL of timm's own models
  foreign/MODEL.{pth,safetensors}  weights of timm's own models
  training_MODEL.safetensors   a model trained for one step in float64
"""

import pickle
import re
import sys
from pathlib import Path

import safetensors.torch
import timm
import torch
import torchvision

folder = Path(sys.argv[1])
batches = safetensors.torch.load_file(folder / "batches.safetensors")
results = {}

# Names of other frameworks as patterns, and timm's for them, in the order in
# which they are tried.
DETECTRON2_RESNET = [
    (r"stem\.conv1\.weight", r"conv1.weight"),
    (r"stem\.conv1\.norm\.(.*)", r"bn1.\1"),
    (r"res(\d)\.(\d+)\.shortcut\.weight", r"layer{1}.\2.downsample.0.weight"),
    (r"res(\d)\.(\d+)\.shortcut\.norm\.(.*)", r"layer{1}.\2.downsample.1.\3"),
    (r"res(\d)\.(\d+)\.conv(\d)\.weight", r"layer{1}.\2.conv\3.weight"),
    (r"res(\d)\.(\d+)\.conv(\d)\.norm\.(.*)", r"layer{1}.\2.bn\3.\4"),
]
CONVNEXT_TRUNK = [
    (r"downsample_layers\.0\.([01])\.(.*)", r"stem.\1.\2"),
    (r"downsample_layers\.([123])\.([01])\.(.*)", r"stages.\1.downsample.\2.\3"),
]
OFFICIAL_CONVNEXT = CONVNEXT_TRUNK + [
    (r"stages\.(\d)\.(\d+)\.dwconv\.(.*)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d)\.(\d+)\.pwconv(\d)\.(.*)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d)\.(\d+)\.(norm\..*|gamma)", r"stages.\1.blocks.\2.\3"),
    (r"norm\.(.*)", r"head.norm.\1"),
]
MMDET_CONVNEXT = CONVNEXT_TRUNK + [
    (r"stages\.(\d)\.(\d+)\.depthwise_conv\.(.*)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d)\.(\d+)\.pointwise_conv(\d)\.(.*)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d)\.(\d+)\.(norm\..*|gamma)", r"stages.\1.blocks.\2.\3"),
    (r"norm3\.(.*)", r"head.norm.\1"),
]
SAME = [(r"(.*)", r"\1")]
# Models that torchvision calls otherwise.
TORCHVISION = {"regnety_016": "regnet_y_1_6gf"}


def translate(state, table):
    def timms(name):
        for pattern, target in table:
            match = re.fullmatch(pattern, name)
            if match:
                # detectron2 counts its stages from res2.
                stage = str(int(match[1]) - 1) if "{1}" in target else ""
                return match.expand(target.replace("{1}", stage))
        raise SystemExit(f"no counterpart for {name}")

    translated = {timms(name): tensor for name, tensor in state.items()}
    assert len(translated) == len(state)
    return translated


def pth(name):
    return torch.load(folder / name, weights_only=True)


def detectron2(name):
    with open(folder / name, "rb") as file:
        arrays = pickle.load(file, encoding="latin1")["model"]
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def without_prefix(state, prefix):
    assert all(name.startswith(prefix) for name in state), list(state)[:3]
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def pyramid(model, images):
    """The four levels of a whole timm model."""
    return model.forward_intermediates(images, intermediates_only=True)[-4:]


def record(key, levels):
    """Runs `levels` on every batch."""
    for batch, images in batches.items():
        with torch.no_grad():
            found = levels(images)
        assert len(found) == 4, key
        for level, features in enumerate(found):
            results[f"{key}/{batch}/{level}"] = features.contiguous()


def record_timm(key, model):
    model.eval()
    record(key, lambda images: pyramid(model, images))


def torchvision_levels(model, stages):
    def levels(images):
        found = []
        hooks = [stage.register_forward_hook(lambda _m, _i, out: found.append(out))
                 for stage in stages]
        model(images)
        for hook in hooks:
            hook.remove()
        return found

    return levels


def exported(name, family):
    """Everything the crate exported of a model."""
    local = f"local-dir:{folder / f'{name}.timm'}"
    whole = timm.create_model(local, pretrained=True)
    record_timm(f"{name}/timm", whole)
    extractor = timm.create_model(local, pretrained=True, features_only=True).eval()
    record(f"{name}/timm features_only", lambda images: extractor(images)[-4:])

    official = OFFICIAL_CONVNEXT if family == "convnext" else SAME
    states = {
        "official": translate(pth(f"{name}.official.pth"), official),
        "safetensors": translate(
            safetensors.torch.load_file(folder / f"{name}.safetensors"), official
        ),
    }
    if family != "regnet":
        mmdet = MMDET_CONVNEXT if family == "convnext" else SAME
        states["mmdet"] = translate(
            without_prefix(pth(f"{name}.mmdet.pth"), "backbone."), mmdet
        )
    if family == "resnet":
        states["detectron2"] = translate(
            detectron2(f"{name}.detectron2.pkl"), DETECTRON2_RESNET
        )
    own = whole.state_dict()
    for form, state in states.items():
        for tensor in own.values():
            tensor.zero_()
        # timm alone has 1×1 convolutions in place of small ConvNeXts' linear layers.
        state = {name: tensor.reshape(own[name].shape) for name, tensor in state.items()}
        whole.load_state_dict(state, strict=True)
        record_timm(f"{name}/{form}", whole)

    theirs = TORCHVISION.get(name, name)
    if not hasattr(torchvision.models, theirs):
        return
    model = getattr(torchvision.models, theirs)()
    lacking = model.load_state_dict(pth(f"{name}.torchvision.pth"), strict=False)
    head = "classifier.2." if family == "convnext" else "fc."
    assert not lacking.unexpected_keys, lacking.unexpected_keys
    assert sorted(lacking.missing_keys) == [f"{head}bias", f"{head}weight"], lacking
    model.eval()
    if family == "resnet":
        stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    elif family == "regnet":
        stages = list(model.trunk_output)
    else:
        stages = [model.features[index] for index in (1, 3, 5, 7)]
    record(f"{name}/torchvision", torchvision_levels(model, stages))


def randomise(model):
    """timm starts residual branches and running statistics at values that
    hide them: 0, 1, 1e-6."""
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_var", "gamma")) or (
            name.endswith("weight") and tensor.dim() == 1
        ):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.1)
    return model


def foreign(name):
    """Weights of timm's own model, and its features."""
    torch.manual_seed(sum(name.encode()))
    model = randomise(timm.create_model(name, num_classes=10))
    record_timm(f"timm/{name}", model)
    torch.save(model.state_dict(), folder / "foreign" / f"{name}.pth")
    safetensors.torch.save_file(model.state_dict(), folder / "foreign" / f"{name}.safetensors")
    return model


def training(architecture):
    """A forward and backward pass in float64, with batch statistics."""
    model = foreign(architecture).double().train()
    images = batches["landscape"].double().requires_grad_()
    levels = pyramid(model, images)
    loss = sum(features.square().mean() for features in levels)
    loss.backward()
    tensors = {"loss": loss.detach(), "input": images.grad}
    for level, features in enumerate(levels):
        tensors[f"level.{level}"] = features.detach()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            tensors[f"grad.{name}"] = parameter.grad
    for name, buffer in model.named_buffers():
        tensors[f"buffer.{name}"] = buffer
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / f"training_{architecture}.safetensors",
    )


(folder / "foreign").mkdir()
exported("resnet50", "resnet")
exported("convnext_tiny", "convnext")
exported("convnext_atto", "convnext")
exported("regnety_016", "regnet")
for name in ("resnet50", "convnext_tiny", "convnext_atto", "resnext50_32x4d", "regnety_040"):
    foreign(name)
for name in ("resnet18", "regnety_016"):
    training(name)
safetensors.torch.save_file(results, folder / "features.safetensors")
