"""Colours and similarities of feature maps, computed again by other means.

Usage: features_check.py FILE.safetensors, with NAME.map [C, h, w], NAME.valid [h, w], NAME.colours
of all positions and NAME.colours.some of the valid ones [3, h, w], NAME.similarity [h, w] and the
position NAME.at. Prints the number of maps."""

import sys

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.utils.extmath import svd_flip

NEUTRAL = 128


def colours(feature, valid):
    """By numpy's SVD, scikit-learn's signs and numpy's percentiles."""
    positions = feature[:, valid].T.astype(np.float64)
    left, values, right = np.linalg.svd(positions - positions.mean(0), full_matrices=False)
    left, _ = svd_flip(left, right, u_based_decision=False)
    scores = (left * values)[:, :3]
    low, high = np.percentile(scores, [1, 99], axis=0)
    levels = np.clip((scores - low) / (high - low), 0, 1) * 255
    drawn = np.full((3, *valid.shape), float(NEUTRAL))
    drawn[: scores.shape[1], valid] = levels.T
    return drawn


def check_colours(found, expected):
    # Half a level is rounding; what float64 rounds on the way is far below 0.01.
    difference = np.abs(found.numpy().astype(np.float64) - expected).max()
    assert difference <= 0.51, difference


tensors = load_file(sys.argv[1])
names = sorted({name.split(".")[0] for name in tensors})
for name in names:
    feature, valid = tensors[f"{name}.map"], tensors[f"{name}.valid"].numpy()
    assert 3 < valid.sum() < valid.size, name
    everywhere = np.ones_like(valid)
    check_colours(tensors[f"{name}.colours"], colours(feature.numpy(), everywhere))
    check_colours(tensors[f"{name}.colours.some"], colours(feature.numpy(), valid))
    y, x = tensors[f"{name}.at"].tolist()
    one = feature[:, y : y + 1, x : x + 1].expand_as(feature).double()
    similarity = torch.nn.functional.cosine_similarity(feature.double(), one, dim=0)
    # Float32 holds what was computed in float64.
    assert (tensors[f"{name}.similarity"] - similarity).abs().max() < 1e-6, name
print(len(names), "maps")
