"""Builds Mask R-CNN in detection frameworks from the configs of spark_backbone,
and runs one forward and one training step.

    frameworks_check.py FOLDER mmdet|detectron2 ...

FOLDER is for the weights that the backbones start from. Prints a line a check.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spark_backbone

SIDE = 128
# Two objects: boxes as (x1, y1, x2, y2) in pixels, their classes, and masks that
# fill them.
BOXES = torch.tensor([[16.0, 24.0, 80.0, 88.0], [60.0, 40.0, 120.0, 116.0]])
CLASSES = torch.tensor([0, 7])


def masks() -> np.ndarray:
    filled = np.zeros((len(BOXES), SIDE, SIDE), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(filled, BOXES.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return filled


def weights_of(model: str, folder: Path) -> Path:
    """A file of weights to start from. Not as initialised: there the last norm of
    each residual block is 0, and with it the gradients before it."""
    path = folder / f"{model}.safetensors"
    backbone = spark_backbone.Backbone(model)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    backbone.save_weights(path)
    return path


def check_step(what: str, model: torch.nn.Module, backbone: Any, losses: Any) -> None:
    """One training step: finite losses, gradients in every part that is not frozen,
    and other features after it."""
    total = sum(losses.values())
    assert torch.isfinite(total), f"{what}: losses {losses}"
    total.backward()
    lacking = [
        name
        for name, parameter in backbone.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not lacking, f"{what}: no gradient for {lacking}"
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    image = torch.randn(1, 3, SIDE, SIDE)

    def coarsest() -> torch.Tensor:
        with torch.no_grad():
            maps = backbone(image)
        return (list(maps.values()) if isinstance(maps, dict) else maps)[-1]

    before = coarsest()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.SGD(trained, lr=0.01).step()
    assert not torch.equal(coarsest(), before), f"{what}: the step changed nothing"
    shown = ", ".join(f"{name} {value.item():.3f}" for name, value in sorted(losses.items()))
    print(f"ok  {what}: one training step, {len(frozen)} frozen tensors; {shown}", flush=True)


def registers_where_imported() -> None:
    """A framework imported before the package needs no further import."""
    program = (
        "from mmengine.registry import MODELS; import spark_backbone; "
        "assert MODELS.get('SparKBackbone') is not None"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    print("ok  registered with mmengine, which was imported first", flush=True)


def rules_find_layers() -> None:
    """mmengine's rules for optimizers and initial weights do to a backbone what they do to
    timm's."""
    import timm
    from mmengine.optim import DefaultOptimWrapperConstructor
    from mmengine.registry import MODELS

    import spark_backbone.mmdet  # noqa: F401  (the package was imported first)

    def groups(model: torch.nn.Module, rules: dict[str, Any]) -> list[tuple[Any, ...]]:
        optimizer = dict(type="SGD", lr=0.1, weight_decay=0.01)
        wrapper = dict(type="OptimWrapper", optimizer=optimizer)
        built = DefaultOptimWrapperConstructor(wrapper, dict(rules))(model)
        found = []
        for group in built.optimizer.param_groups:
            (parameter,) = group["params"]
            # Linear layers of the official ConvNeXt are 1×1 convolutions in timm's.
            shape = [side for side in parameter.shape if side > 1]
            found.append((shape, group["lr"], group["weight_decay"]))
        return sorted(found)

    for name in ("resnet50", "convnext_tiny"):
        ours = MODELS.build(dict(type="SparKBackbone", name=name))
        theirs = timm.create_model(name, features_only=True)
        for rules in (
            dict(norm_decay_mult=0.0),
            dict(norm_decay_mult=0.5, bias_decay_mult=0.0, bias_lr_mult=2.0),
            dict(dwconv_decay_mult=0.25, bypass_duplicate=True),
            dict(custom_keys={"bn": dict(decay_mult=0.3)}, flat_decay_mult=0.1),
        ):
            assert groups(ours, rules) == groups(theirs, rules), (name, rules)

    constant = dict(type="Constant", val=3.0, layer=["_BatchNorm", "GroupNorm"])
    init_cfg = [dict(type="Constant", val=2.0, layer="Conv2d"), constant]
    model = MODELS.build(dict(type="SparKBackbone", name="resnet18", init_cfg=init_cfg))
    model.init_weights()
    held = model.torchscript.named_parameters()
    assert (held["conv1.weight"] == 2).all() and (held["layer1.0.bn2.weight"] == 3).all()
    print("ok  mmengine's rules for norms, biases and initial weights", flush=True)


def norms_are_held() -> None:
    """norm_eval and frozen_stages hold batch norms still in training, and they alone."""
    from mmengine.registry import MODELS

    for settings, held in (
        ({}, []),
        (dict(norm_eval=True), ["bn1", "layer1", "layer2", "layer3", "layer4"]),
        (dict(frozen_stages=1), ["bn1", "layer1"]),
        (dict(norm_eval=True, out_norm=True), ["bn1", "layer1", "layer2", "layer3", "layer4"]),
    ):
        model = MODELS.build(dict(type="SparKBackbone", name="resnet18", **settings)).train()
        before = {name: value.clone() for name, value in model.named_buffers()}
        model(torch.randn(2, 3, 64, 64))
        changed = {
            name.split(".")[0]
            for name, value in model.named_buffers()
            if name.endswith("running_mean") and not torch.equal(value, before[name])
        }
        norms = {"bn1", "layer1", "layer2", "layer3", "layer4"}
        assert changed == norms - set(held), (settings, changed)
    print("ok  mmdet: norm_eval and frozen_stages hold batch norms", flush=True)


def mmdet(folder: Path) -> None:
    registers_where_imported()
    rules_find_layers()
    norms_are_held()
    for name in ("resnet50", "convnext_tiny"):
        mmdet_model(name, folder)


def mmdet_model(name: str, folder: Path) -> None:
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.structures import InstanceData

    register_all_modules()
    # Config runs custom_imports, which registers the backbone.
    config = Config.fromfile(spark_backbone.config_file(f"mmdet/mask_rcnn_{name}_fpn.py"))
    config.model.backbone.weights = str(weights_of(name, folder))
    # A block that is dropped for the only image has no gradient.
    config.model.backbone.drop_path_rate = 0.0
    # Heads that have learnt nothing are sure of nothing.
    config.model.test_cfg.rcnn.score_thr = 0.0
    model = MODELS.build(config.model)
    model.init_weights()
    assert isinstance(model.backbone, spark_backbone.Backbone)

    def batch() -> dict[str, Any]:
        sample = DetDataSample(
            metainfo=dict(
                img_id=1,
                img_shape=(SIDE, SIDE),
                ori_shape=(SIDE, SIDE),
                batch_input_shape=(SIDE, SIDE),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=BOXES.clone(),
            labels=CLASSES.clone(),
            masks=BitmapMasks(masks(), SIDE, SIDE),
        )
        image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
        return dict(inputs=[image], data_samples=[sample])

    model.eval()
    with torch.no_grad():
        (found,) = model.test_step(batch())
    count = len(found.pred_instances)
    assert count > 0 and found.pred_instances.masks.shape[1:] == (SIDE, SIDE)
    print(f"ok  mmdet {name}: forward, {count} boxes with masks", flush=True)

    model.train()
    data = model.data_preprocessor(batch(), training=True)
    losses = model(**data, mode="loss")
    _, values = model.parse_losses(losses)
    total = model.parse_losses(losses)[0]
    parts = {key: value for key, value in values.items() if "loss_" in key}
    assert abs(sum(parts.values()) - total) <= 1e-5 * total, (parts, total)
    flat = {
        key: sum(value) if isinstance(value, list) else value
        for key, value in losses.items()
        if "loss" in key
    }
    check_step(f"mmdet {name}", model, model.backbone, flat)


def detectron2_config() -> Any:
    from detectron2.config import get_cfg

    from spark_backbone.detectron2 import add_spark_config

    config = get_cfg()
    add_spark_config(config)
    config.merge_from_file(spark_backbone.config_file("detectron2/mask_rcnn_resnet50_fpn.yaml"))
    config.MODEL.DEVICE = "cpu"
    config.INPUT.MASK_FORMAT = "bitmask"
    return config


def detectron2_rules_find_layers() -> None:
    """detectron2's groups of parameters are those of timm's module."""
    import timm
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone
    from detectron2.solver import build_optimizer
    from detectron2.solver.build import get_default_optimizer_params

    def groups(model: torch.nn.Module, **rules: Any) -> list[tuple[Any, ...]]:
        found = []
        params = get_default_optimizer_params(model, base_lr=0.1, weight_decay=0.01, **rules)
        for group in params:
            for parameter in group["params"]:
                shape = [side for side in parameter.shape if side > 1]
                settings = {key: value for key, value in group.items() if key != "params"}
                found.append((shape, sorted(settings.items())))
        return sorted(found)

    for name in ("resnet50", "convnext_tiny"):
        config = detectron2_config()
        config.MODEL.SPARK.NAME = name
        config.MODEL.BACKBONE.FREEZE_AT = 0
        config.MODEL.BACKBONE.NAME = "build_spark_backbone"
        ours = build_backbone(config)
        theirs = timm.create_model(name, features_only=True)
        for rules in (
            dict(weight_decay_norm=0.0),
            dict(weight_decay_norm=0.5, weight_decay_bias=0.0, bias_lr_factor=2.0),
        ):
            assert groups(ours, **rules) == groups(theirs, **rules), (name, rules)
    solver = get_cfg()
    solver.SOLVER.WEIGHT_DECAY_NORM = 0.0
    optimizer = build_optimizer(solver, ours)
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, solver.SOLVER.WEIGHT_DECAY}, decays
    print("ok  detectron2's rules for norms and biases", flush=True)


def detectron2_converters() -> None:
    """Converters of batch norms work or are refused in a sentence, and leave the model whole."""
    from detectron2.layers import FrozenBatchNorm2d
    from detectron2.modeling import build_backbone

    image = torch.randn(1, 3, 64, 64)
    for held in (True, False):
        config = detectron2_config()
        config.MODEL.SPARK.NAME = "resnet18"
        config.MODEL.SPARK.NORM_EVAL = held
        config.MODEL.BACKBONE.FREEZE_AT = 0
        model = build_backbone(config).eval()
        before = model(image)
        convert = torch.nn.SyncBatchNorm.convert_sync_batchnorm
        for name, converter, works in (
            ("SyncBatchNorm", convert, held),
            ("FrozenBatchNorm2d", FrozenBatchNorm2d.convert_frozen_batchnorm, False),
        ):
            try:
                converter(model)
            except RuntimeError as error:
                assert not works and "norm_eval=True" in str(error), error
            else:
                assert works, f"{name} of norms that are held: {held}"
            after = model(image)
            assert all(torch.equal(before[level], after[level]) for level in before)
    print("ok  detectron2: SyncBatchNorm and FrozenBatchNorm2d", flush=True)


def detectron2(folder: Path) -> None:
    from detectron2.modeling import build_model
    from detectron2.structures import BitMasks, Boxes, Instances

    detectron2_rules_find_layers()
    detectron2_converters()
    config = detectron2_config()
    config.MODEL.SPARK.WEIGHTS = str(weights_of("resnet50", folder))
    # Heads that have learnt nothing are sure of nothing.
    config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_model(config)
    bottom_up = model.backbone.bottom_up
    assert isinstance(bottom_up, spark_backbone.Backbone)
    shapes = {name: (s.channels, s.stride) for name, s in bottom_up.output_shape().items()}
    expected = {"res2": (256, 4), "res3": (512, 8), "res4": (1024, 16), "res5": (2048, 32)}
    assert shapes == expected, shapes
    assert bottom_up.size_divisibility == 32 and model.backbone.size_divisibility == 32

    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    model.eval()
    with torch.no_grad():
        (found,) = model([dict(image=image, height=SIDE, width=SIDE)])
    assert len(found["instances"]) > 0
    print(f"ok  detectron2 resnet50: forward, {len(found['instances'])} boxes", flush=True)

    instances = Instances((SIDE, SIDE))
    instances.gt_boxes = Boxes(BOXES)
    instances.gt_classes = CLASSES
    instances.gt_masks = BitMasks(torch.from_numpy(masks()).bool())
    model.train()
    from detectron2.utils.events import EventStorage

    with EventStorage():
        losses = model([dict(image=image, instances=instances, height=SIDE, width=SIDE)])
    check_step("detectron2 resnet50", model, bottom_up, losses)


def main() -> None:
    torch.manual_seed(0)
    folder = Path(sys.argv[1])
    for framework in sys.argv[2:]:
        {"mmdet": mmdet, "detectron2": detectron2}[framework](folder)


if __name__ == "__main__":
    main()
