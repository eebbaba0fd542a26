"""A worker of torchvision's loading: JPEG files to normalised batches."""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import io, transforms
from torchvision.transforms import v2

import protocol

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE, RATIO = (0.67, 1.0), (3 / 4, 4 / 3)


def transform(way, size):
    if way == "v1":
        return transforms.Compose([
            transforms.RandomResizedCrop(
                size, SCALE, RATIO, transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ])
    to_tensor = [v2.PILToTensor()] if way == "v2" else []
    return v2.Compose([
        v2.RandomResizedCrop(size, SCALE, RATIO, v2.InterpolationMode.BICUBIC, antialias=True),
        v2.RandomHorizontalFlip(),
        *to_tensor,
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])


class Photographs(Dataset):
    def __init__(self, folder, way, size):
        self.files = sorted(str(path) for path in folder.glob("*.jpg"))
        self.transform = transform(way, size)
        self.tensors = way == "tensors"

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        if self.tensors:
            image = io.decode_image(self.files[index], io.ImageReadMode.RGB)
        else:
            with open(self.files[index], "rb") as file:
                image = Image.open(file).convert("RGB")
        return self.transform(image)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=["v1", "v2", "tensors"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True, help="of a round")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True, help="worker processes")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    memory = protocol.Memory()
    images = arguments.batch * arguments.batches
    photographs = Photographs(arguments.inputs, arguments.way, arguments.size)
    loader = DataLoader(
        photographs,
        batch_size=arguments.batch,
        sampler=RandomSampler(photographs, num_samples=images),
        num_workers=arguments.threads,
        persistent_workers=True,
    )
    sums = torch.zeros(2, 3)
    for batch in loader:
        sums += torch.stack([batch.mean((0, 2, 3)), batch.square().mean((0, 2, 3))])
    mean, square = sums / arguments.batches
    checks = {"statistics": [*mean.tolist(), *(square - mean**2).sqrt().tolist()]}

    def round():
        count = sum(len(batch) for batch in loader)
        assert count == images, count

    protocol.serve(checks, memory, images, round)


if __name__ == "__main__":
    main()
