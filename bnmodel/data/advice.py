"""Advice for pictures with a doubtful answer: faint ink, uneven light, several digits."""

from dataclasses import dataclass

import numpy as np
import torch

from bnmodel.data.content import find_content
from bnmodel.data.ink import InkFinder

FAINT = 0.2  # contrast of the strongest ink below which it is too faint
UNEVEN = 0.25  # difference in brightness within the paper above which light is uneven


@dataclass(frozen=True)
class Measured:
    """Properties of a picture."""

    contrast: float  # of the strongest ink, in [0, 1]; 0 for a blank picture
    unevenness: float  # difference in brightness within the paper, in [0, 1]
    touches_border: bool


def measure(canvas: np.ndarray) -> Measured:
    """Properties of a uint8 RGBA canvas (H, W, 4), sides 8 … 4096."""
    with torch.inference_mode():
        found = InkFinder()(torch.from_numpy(np.ascontiguousarray(canvas)))
        contrast = find_content(found)[2]
    rows, columns = torch.nonzero(contrast > 0.3 * contrast.max(), as_tuple=True)
    height, width = int(found.rows.sum()), int(found.columns.sum())
    touches = len(rows) > 0 and (
        int(rows.min()) == 0
        or int(columns.min()) == 0
        or int(rows.max()) >= height - 1
        or int(columns.max()) >= width - 1
    )
    return Measured(float(contrast.max()), float(found.unevenness), touches)


def advice(canvas: np.ndarray, digits: int = 1) -> str:
    """A sentence of advice for a picture with a doubtful answer. `digits`: number found, -1 for too many."""
    measured = measure(canvas)
    if measured.contrast == 0:
        return "Nothing stands out from the paper: use a darker pen, or more light."
    if digits < 0 or digits > 1:
        return "There are several digits, and not all of them are clear: write them apart, or crop the picture to one."
    if measured.touches_border:
        return "The ink touches the border: leave a margin."
    if measured.contrast < FAINT:
        return "The ink is too faint: use a darker pen, or more light."
    if measured.unevenness > UNEVEN:
        return "The light is uneven: avoid shadows on the paper."
    return "This does not look like a digit."
