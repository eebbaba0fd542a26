"""Bad input: a sentence each, naming operand, value and rule."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import torch

import spark_backbone
from spark_backbone import Backbone

from .harness import check, images, refuses


@check
def bad_settings_are_refused(folder: Path) -> None:
    resnet18 = partial(Backbone, "resnet18")
    refuses(lambda: Backbone("resnet19"), "resnet19", "resnet18", "convnext_tiny")
    refuses(lambda: Backbone(""), "model")
    refuses(lambda: resnet18(out_indices=(0, 4)), "out_indices", "4")
    refuses(lambda: resnet18(out_indices=(-1,)), "out_indices", "-1")
    refuses(lambda: resnet18(out_indices=(2, 1)), "out_indices")
    refuses(lambda: resnet18(out_indices=(1, 1)), "out_indices")
    refuses(lambda: resnet18(out_indices=()), "out_indices")
    refuses(lambda: resnet18(in_chans=0), "in_chans", "0")
    refuses(lambda: resnet18(drop_path_rate=1.5), "drop_path_rate", "1.5")
    refuses(lambda: resnet18(freeze_at=9), "freeze_at", "9")
    refuses(lambda: resnet18(freeze_at=-1), "freeze_at", "-1")
    refuses(lambda: resnet18(dtype=torch.int64), "dtype", "int64", "float32")
    refuses(lambda: resnet18(dtype="float"), "dtype", "float")
    refuses(lambda: resnet18(device="tpu"), "device", "tpu")
    refuses(lambda: resnet18(device="cuda:99"), "device", "cuda:99")
    refuses(lambda: Backbone("resnet18").freeze(6), "freeze_at", "6")
    refuses(lambda: torch.classes.spark.Backbone('{"modell": "resnet18"}', ""), "modell")
    refuses(lambda: torch.classes.spark.Backbone("{", ""), "config")
    refuses(
        lambda: spark_backbone.config_file("mmdet/r50.py"),
        "mmdet/r50.py",
        "mmdet/mask_rcnn_resnet50_fpn.py",
        kind=ValueError,
    )


@check
def one_value_a_channel_teaches_batch_norm_nothing(folder: Path) -> None:
    backbone = Backbone("resnet18").train()
    single = torch.randn(1, 3, 32, 32)
    refuses(lambda: backbone(single), "[1, 3, 32, 32]", "more than 1 value per channel")
    assert int(backbone.bn1.num_batches_tracked) == 0
    # Norms that a host holds still do not ask for more, as in PyTorch; one that it lets
    # learn does.
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.eval()
    assert backbone(single)[-1].isfinite().all()
    backbone.eval()
    norms[-1].train()
    refuses(lambda: backbone(single), "more than 1 value per channel")
    assert all(tensor.isfinite().all() for tensor in backbone.state_dict().values())


@check
def bad_images_are_refused(folder: Path) -> None:
    backbone = Backbone("resnet18")
    refuses(lambda: backbone(torch.randn(3, 64, 64)), "[3, 64, 64]", "[N, 3, H, W]")
    refuses(lambda: backbone(torch.randn(1, 4, 64, 64)), "[1, 4, 64, 64]", "3")
    refuses(lambda: backbone(torch.randn(0, 3, 64, 64)), "[0, 3, 64, 64]")
    refuses(lambda: backbone(torch.randn(1, 3, 64, 8)), "[1, 3, 64, 8]")
    refuses(lambda: backbone(images(dtype=torch.float64)), "float64", "float32")
    refuses(lambda: backbone(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), "Uint8", "floating")
    refuses(lambda: backbone(torch.empty(1, 3, 64, 64, device="meta")), "meta", "cpu")
    refuses(lambda: backbone(images().to_sparse()), "sparse")
    refuses(lambda: backbone(None), "input is undefined")
    # It still works.
    assert len(backbone(images())) == 4


@check
def bad_files_are_refused(folder: Path) -> None:
    missing, broken = str(folder / "nowhere.pth"), folder / "broken.safetensors"
    broken.write_bytes(b"\x00" * 40)
    text = folder / "text.pth"
    text.write_text("weights")
    refuses(lambda: Backbone("resnet18", missing), missing)
    refuses(lambda: Backbone("resnet18", folder), str(folder))
    refuses(lambda: Backbone("resnet18", broken), str(broken))
    refuses(lambda: Backbone("resnet18", text), str(text))

    convnext = folder / "convnext_tiny.safetensors"
    backbone = Backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    refuses(lambda: backbone.load_weights(convnext), "convnext_tiny.safetensors")
    unchanged = all(torch.equal(t, before[name]) for name, t in backbone.state_dict().items())
    assert unchanged, "a load that fails must change nothing"

    five = folder / "five.safetensors"
    Backbone("resnet18", in_chans=5).save_weights(five)
    refuses(lambda: Backbone("resnet18", five), "five.safetensors", "With `strict` off")
    refuses(lambda: backbone.save_weights(folder / "nowhere" / "w.pth"), "nowhere")
    refuses(lambda: backbone.save_weights(folder / "w.onnx"), "w.onnx")
    refuses(lambda: backbone.save_weights(folder / "w.pth", "keras"), "keras", "timm")
    refuses(
        lambda: Backbone("convnext_tiny").save_weights(folder / "w.pkl", "detectron2"),
        "detectron2",
    )
    assert not list(folder.glob("w.*")), "a refused file is not written"


@check
def missing_frameworks_are_named(folder: Path) -> None:
    for adapter, framework in {"detectron2": "detectron2", "mmdet": "mmengine"}.items():
        if importlib.util.find_spec(framework) is None:
            refuses(
                lambda: importlib.import_module(f"spark_backbone.{adapter}"),
                f"spark_backbone.{adapter} needs {framework}",
                kind=ImportError,
            )


@check
def the_torch_release_is_checked(folder: Path) -> None:
    from spark_backbone._carried import series_of
    from spark_backbone._library import NAME, load

    carried = {"2.9": "2.9.1", "2.13": "2.13.0"}
    for good in ("2.13.0", "2.13.0+cu130", "2.13.1+cpu"):
        assert series_of(good, carried) == "2.13"
    assert series_of("2.9.0", carried) == "2.9"
    for bad in ("2.12.1+cpu", "2.14.0", "3.13.0", "2.1.3", "2.90.0", "2.7.1", "2.16.0"):
        words = (bad, "2.9.1, 2.13.0", "install")
        refuses(lambda: series_of(bad, carried), *words, kind=ImportError)
    refuses(lambda: series_of("2.13.0", {}), "carries no library", kind=ImportError)
    # Loading again is harmless, whatever lies at the path.
    again = load(folder / NAME)
    assert again("resnet18", "").stages() == [0, 1, 2, 3]
