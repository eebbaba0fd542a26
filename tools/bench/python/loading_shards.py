"""A worker of WebDataset's loading: tar shards, on a disk or of a web server, to normalised
batches."""

import argparse
import os
from pathlib import Path

import torch
import webdataset as wds

import loading
import protocol

# Samples that are shuffled among each other, as its documentation has it.
SHUFFLED = 1000


def shards(inputs):
    """Of a folder, or of the store that AWS_ENDPOINT_URL is, read over HTTP by curl."""
    if not inputs.startswith("s3://"):
        return sorted(str(path) for path in Path(inputs, "set").glob("*.tar"))
    bucket = inputs.removeprefix("s3://").strip("/")
    base = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}"
    count = int(os.environ["SHARDS"])
    return [f"{base}/shard-{number:06d}.tar" for number in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=["v1", "v2"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True, help="of a round")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--threads", type=int, required=True, help="worker processes")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    memory = protocol.Memory()
    transform = loading.transform(arguments.way, arguments.size)
    dataset = (
        wds.WebDataset(
            shards(arguments.inputs), resampled=False, shardshuffle=100,
            nodesplitter=wds.split_by_node)
        .repeat()
        .shuffle(SHUFFLED)
        .decode("pilrgb")
        .to_tuple("jpg")
        .map(lambda sample: transform(sample[0]))
        .batched(arguments.batch, collation_fn=torch.stack, partial=False)
    )
    loader = iter(wds.WebLoader(
        dataset, batch_size=None, num_workers=arguments.threads, persistent_workers=True))
    sums = torch.zeros(2, 3)
    for _ in range(arguments.batches):
        batch = next(loader)
        sums += torch.stack([batch.mean((0, 2, 3)), batch.square().mean((0, 2, 3))])
    mean, square = sums / arguments.batches
    checks = {"statistics": [*mean.tolist(), *(square - mean**2).sqrt().tolist()]}
    images = arguments.batch * arguments.batches

    def round():
        count = sum(len(next(loader)) for _ in range(arguments.batches))
        assert count == images, count

    protocol.serve(checks, memory, images, round)


if __name__ == "__main__":
    main()
