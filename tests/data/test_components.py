"""Connected components of a mask, against SciPy's labels."""

import numpy as np
import pytest
import torch
from preprocessing_helpers import STROKES, drawn
from scipy import ndimage

from bnmodel.data.components import components

SIDE = 80


def with_corner(mask: np.ndarray) -> np.ndarray:
    mask[:2, :2] = mask[-2:, -2:] = True
    return mask


def ring() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:-2, 2:-2] = True
    mask[4:-4, 4:-4] = False
    mask[30:50, 38:42] = True
    return mask


def specks() -> np.ndarray:
    return np.random.default_rng(0).random((SIDE, SIDE)) < 0.1


MASKS = {
    **{name: with_corner(drawn(points, SIDE) > 90) for name, points in STROKES.items()},
    "ring": ring(),
    "specks": with_corner(specks()),
    "full": np.ones((SIDE, SIDE), bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_every_cell_has_the_extent_of_its_component(name: str) -> None:
    mask = MASKS[name]
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    expected = np.zeros((4, SIDE, SIDE), np.float32)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        ends = np.array([rows.start, rows.stop, columns.start, columns.stop])
        expected[:, labels == number] = ends[:, None]
    found = np.stack([extent.numpy() for extent in components(torch.from_numpy(mask.astype(np.float32)))])
    assert np.array_equal(found[:, mask], expected[:, mask])
