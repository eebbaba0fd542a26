"""Networks that torch.export has written."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path

import graph_networks
import safetensors.torch
import torch
from torch import nn

from spark_backbone import Backbone

from .copies import saved_and_loaded
from .harness import check, equal, images, refuses, total

STAGES = {
    "test_resnet": ["layer1", "layer2", "layer3", "layer4"],
    "small": ["stage1", "stage2", "stage3", "stage4"],
}


def exported(folder: Path, name: str) -> tuple[nn.Module, Path]:
    """A network, and the file that it was exported to."""
    network, path = graph_networks.network(name, 0), folder / f"{name}.pt2"
    torch.export.save(torch.export.export(network, (torch.randn(graph_networks.IMAGE),)), path)
    return network, path


def maps_of(network: nn.Module, stages: list[str], batch: torch.Tensor) -> list[torch.Tensor]:
    """What the modules put out."""
    maps: list[torch.Tensor] = []
    hooks = [
        network.get_submodule(stage).register_forward_hook(lambda _, __, out: maps.append(out))
        for stage in stages
    ]
    network(batch)
    for hook in hooks:
        hook.remove()
    return maps


@check
def a_file_gives_the_network_with_its_weights_and_names(folder: Path) -> None:
    for name, stages in STAGES.items():
        network, path = exported(folder, name)
        backbone = Backbone(str(path)).eval()
        for batch in (images(), images(3, 96)):
            with torch.no_grad():
                found, expected = backbone(batch), maps_of(network, stages, batch)
            for our, their in zip(found, expected, strict=True):
                torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)
        head = ("fc.", "classifier.")
        theirs = {k: v for k, v in network.state_dict().items() if not k.startswith(head)}
        ours = backbone.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        two = Backbone(f"{path}:{stages[1]},{stages[2]}").eval()
        with torch.no_grad():
            assert two.strides == (8, 16) and equal(two(batch), found[1:3])


@check
def copies_of_a_network_need_no_file(folder: Path) -> None:
    _, path = exported(folder, "small")
    source = Backbone(str(path)).freeze(1).eval()
    batch = images()
    with torch.no_grad():
        source.get_parameter("gain").mul_(2)
        expected = source(batch)
    path.unlink()
    scripted = torch.jit.script(source)
    scripted.save(str(folder / "from_file.pt"))
    for what, copy in {
        "deepcopy": deepcopy(source),
        "pickle": pickle.loads(pickle.dumps(source)),
        "torch.save": saved_and_loaded(source),
        "TorchScript": torch.jit.load(str(folder / "from_file.pt")),
    }.items():
        with torch.no_grad():
            assert equal(copy(batch), expected), what
    refuses(lambda: Backbone(str(path)), "small.pt2")


@check
def a_network_is_written_whole(folder: Path) -> None:
    network, path = exported(folder, "test_resnet")
    backbone = Backbone(str(path))
    total(backbone(images())).backward()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter -= 1e-3 * parameter.grad
    backbone.save_weights(folder / "whole.safetensors")
    network.load_state_dict(safetensors.torch.load_file(folder / "whole.safetensors"))
    backbone.save_weights(folder / "whole.pt2")
    batch = torch.randn(graph_networks.IMAGE)
    with torch.no_grad():
        again = torch.export.load(folder / "whole.pt2").module()(batch)
        torch.testing.assert_close(again, network.eval()(batch))
    refuses(
        lambda: backbone.save_weights(folder / "whole.pth", naming="torchvision"),
        "naming is torchvision, but test_resnet was read from a .pt2 file",
    )
    refuses(lambda: Backbone(str(path), in_chans=4), "4")
