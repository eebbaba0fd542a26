"""Weights by hf:owner/name in the Python package: equal to those of the file that is the argument."""

import os
import sys
from pathlib import Path

import spark_backbone
import torch
from spark_backbone._sources import ExportError
from spark_backbone._weights import read_state


def check(name: str, holds: bool) -> None:
    assert holds, name
    print(f"ok  {name}")


def main(file: str) -> None:
    expected = spark_backbone.Backbone("resnet18", file).state_dict()

    def same(module: torch.nn.Module) -> bool:
        found = module.state_dict()
        return all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    check("module", same(spark_backbone.Backbone("resnet18", weights="hf:me/net")))
    scripted = torch.classes.spark.Backbone("resnet18", "hf:me/net@main/model.safetensors")
    images = torch.rand(1, 3, 64, 64)
    eager = spark_backbone.Backbone("resnet18", file)
    check("TorchScript", all(map(torch.equal, scripted.forward(images), eager(images))))
    other = spark_backbone.Backbone("resnet18")
    other.load_weights("hf:me/net")
    check("load_weights", same(other))
    try:
        spark_backbone.Backbone("resnet18", "hf:me/none")
        refused = False
    except RuntimeError as error:
        refused = "hf:me/none: there is no such repository" in str(error)
    check("refusal", refused)

    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import hf_hub_download

    found = hf_hub_download("me/net", "model.safetensors")
    with open(found, "rb") as one, open(file, "rb") as two:
        check("huggingface_hub", one.read() == two.read())

    check("export", set(read_state(Path("hf:me/net"))) == set(expected))
    said = []
    for name in ["hf:me/none", "hf:none"]:
        try:
            read_state(Path(name))
        except ExportError as error:
            said.append(str(error))
    check("export's refusals", len(said) == 2 and said[0].startswith("hf:me/none cannot be"))


if __name__ == "__main__":
    main(sys.argv[1])
