"""A symmetric drawing's centre of mass lies midway between two pixels; rounding must not decide where it goes."""

import numpy as np
import torch

from bnmodel import Sketch


def place(side: int, margin: int) -> tuple[int, int]:
    """Where the ink of a filled square begins in the digit: row and column."""
    canvas = np.full((side + 2 * margin, side + 2 * margin, 4), 255, np.uint8)
    canvas[margin : margin + side, margin : margin + side, :3] = 0
    digit = Sketch()(torch.from_numpy(canvas))[0].numpy() > 0.5
    return int(digit.any(1).argmax()), int(digit.any(0).argmax())


def test_squares_of_every_size_and_margin_come_to_the_same_place() -> None:
    # of the last two the centre of mass is rounded down; larger ones are reduced to the working resolution first
    sides = [*range(21, 200, 14), 231, 245]
    assert {place(side, margin) for side in sides for margin in (7, 33, 100)} == {(5, 5)}
