"""Digits without paper around them, as cut out by their bounding box, and with as much ink as paper."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from preprocessing_helpers import opaque
from sklearn.datasets import load_digits
from torch import Tensor

from bnmodel import SketchClassifier, load_checkpoint
from bnmodel.data import load_sample

ROBUST = Path(__file__).parents[2] / "checkpoints" / "robust"
COUNT = 40


@pytest.fixture(scope="module")
def recogniser() -> SketchClassifier:
    return SketchClassifier(load_checkpoint(ROBUST).model).eval()


def share_read(recogniser: SketchClassifier, inks: list[np.ndarray], labels: np.ndarray, pen: int) -> float:
    """Share of the digits that are read with at least 50%; `pen`: brightness of the ink, on paper of 255 - `pen`."""
    right = 0
    for ink, label in zip(inks, labels, strict=True):
        with torch.inference_mode():
            probabilities = recogniser(opaque(pen + (255 - 2 * pen) * (1 - ink)))[0]
        right += int(probabilities[label] >= 0.5)
    return right / len(inks)


@pytest.mark.parametrize("pen", [0, 255])
def test_digits_of_8_by_8_pixels_are_read(recogniser: SketchClassifier, pen: int) -> None:
    digits = load_digits()
    assert share_read(recogniser, list(digits.images[:COUNT] / 16), digits.target[:COUNT], pen) >= 0.9


@pytest.mark.parametrize("pen", [30, 230])
@pytest.mark.parametrize("thick", [1, 3])
def test_digits_cropped_to_their_ink_are_read(recogniser: SketchClassifier, thick: int, pen: int) -> None:
    sample = load_sample(train=False)
    images = F.max_pool2d(sample.images[:COUNT], thick, 1, thick // 2)
    inks = [cropped(image[0], margin=thick // 2) for image in images]
    assert share_read(recogniser, inks, sample.labels[:COUNT].numpy(), pen) >= 0.95


def cropped(image: Tensor, margin: int) -> np.ndarray:
    """Ink (H, W) in [0, 1] → its bounding box, twice as large, and `margin` pixels around it."""
    rows, columns = ((image > 0.3).any(dim=axis).nonzero() for axis in (1, 0))
    box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    enlarged = F.interpolate(box[None, None], scale_factor=2, mode="bilinear")[0, 0]
    return F.pad(enlarged, (margin,) * 4).numpy()
