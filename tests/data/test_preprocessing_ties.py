"""Symmetric drawings, whose centre of mass is midway between two pixels: rounding errors must not decide."""

import numpy as np
import torch

from bnmodel import Sketch


def place(side: int, margin: int) -> tuple[int, int]:
    """First row and column with ink in the digit of a filled square."""
    canvas = np.full((side + 2 * margin, side + 2 * margin, 4), 255, np.uint8)
    canvas[margin : margin + side, margin : margin + side, :3] = 0
    digit = Sketch()(torch.from_numpy(canvas))[0].numpy() > 0.5
    return int(digit.any(1).argmax()), int(digit.any(0).argmax())


def test_squares_of_every_size_and_margin_come_to_the_same_place() -> None:
    # for the last two the centre of mass is rounded down; larger ones are first reduced to working pixels
    sides = [*range(21, 200, 14), 231, 245]
    assert {place(side, margin) for side in sides for margin in (7, 33, 100)} == {(5, 5)}
