"""Random pictures of numbers and of seven-segment displays, as RGBA canvases, uint8 (H, W, 4)."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import paper as p
from benchmarks.form_scenes import digit, in_form, marked
from benchmarks.plotted_scenes import plotted_number
from benchmarks.strokes import Strokes

Rng = np.random.Generator
SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


def led(label: int, rng: Rng) -> np.ndarray:
    """A seven-segment display: bright segments on a dark ground, with gaps; segments that are off are faint."""
    height = int(rng.integers(60, 240))
    width = int(height * rng.uniform(0.6, 1.1))
    size = (height, width)
    y, x = np.mgrid[:height, :width] + 0.5
    tall = height * rng.uniform(0.55, 0.8)
    wide = min(tall * rng.uniform(0.48, 0.6), width * 0.8)
    thick = tall * rng.uniform(0.08, 0.13)
    x = x + (y - height / 2) * rng.uniform(0, 0.15)
    left, top = (width - wide) / 2, (height - tall) / 2
    gap = thick * rng.uniform(0.1, 0.5)
    right, middle, bottom = left + wide, height / 2, top + tall
    boxes = {
        "a": (left, top, right, top), "g": (left, middle, right, middle), "d": (left, bottom, right, bottom),
        "f": (left, top, left, middle), "b": (right, top, right, middle),
        "e": (left, middle, left, bottom), "c": (right, middle, right, bottom),
    }  # fmt: skip
    on, off = np.zeros(size), np.zeros(size)
    for name, (x0, y0, x1, y1) in boxes.items():
        flat = y0 == y1
        along, across = (x, abs(y - y0)) if flat else (y, abs(x - x0))
        start, end = (x0, x1) if flat else (y0, y1)
        inside = np.minimum(along - start - gap - across, end - gap - across - along)
        covered = np.clip(np.minimum(inside, thick / 2 - across) + 0.5, 0, 1)
        target = on if name in SEGMENTS[label] else off
        np.maximum(target, covered, out=target)
    ground, lit = rng.uniform(5, 45), rng.uniform(150, 255)
    picture = p.inked(p.inked(np.full(size, ground), off, ground + rng.uniform(0, 12)), on, lit)
    tint = (1, 0.2, 0.15) if rng.random() < 0.5 else (0.6, 1, 0.7)
    return p.photographed(p.rgba(picture, tint), rng, rng.uniform(0, 1), rng.uniform(0, 2))


def number(digits: Sequence[Strokes], rng: Rng, gap: tuple[float, float], photo: bool = False) -> np.ndarray:
    """Digits in a row. `gap`: range of the distance between neighbours in digit heights; negative overlaps."""
    tall = int(rng.integers(50, 130))
    brush = tall * rng.uniform(0.06, 0.11)
    pieces = [digit(strokes, tall, brush, (np.inf, np.inf), rng) for strokes in digits]
    gaps = [int(rng.uniform(*gap) * tall) for _ in pieces[1:]]
    width = sum(piece.shape[1] for piece in pieces) + sum(gaps)
    margin = int(tall * rng.uniform(0.2, 0.8))
    size = (int(tall * 1.35) + 2 * margin, width + 2 * margin)
    covered = np.zeros(size)
    x = margin
    for piece, space in zip(pieces, [*gaps, 0], strict=True):
        y = (size[0] - piece.shape[0]) // 2 + int(tall * rng.uniform(-0.1, 0.1))
        view = covered[y : y + piece.shape[0], x : x + piece.shape[1]]
        np.maximum(view, piece, out=view)
        x += piece.shape[1] + space
    if not photo:
        return p.rgba(p.inked(np.full(size, 255.0), covered, 0))
    sheet = p.inked(rng.uniform(160, 220) + p.grain(size, rng.uniform(0, 3), rng), covered, rng.uniform(30, 90))
    light = p.vignette(size, rng.uniform(0.75, 1)) * p.slope(size, rng.uniform(0, 0.15), rng.uniform(0, 7))
    return p.photographed(p.rgba(sheet * light), rng, rng.uniform(0, 1), rng.uniform(0, 3), 85)


Scene = Callable[[Sequence[Strokes], Rng], np.ndarray]
NUMBERS: dict[str, tuple[int, int, Scene]] = {
    "two digits, apart": (2, 2, lambda digits, rng: number(digits, rng, (0.15, 0.6))),
    "two digits, close": (2, 2, lambda digits, rng: number(digits, rng, (0.05, 0.15))),
    "two to six digits": (2, 6, lambda digits, rng: number(digits, rng, (0.12, 0.5))),
    "photo of a number": (2, 6, lambda digits, rng: number(digits, rng, (0.12, 0.5), photo=True)),
    "touching digits": (2, 3, lambda digits, rng: number(digits, rng, (-0.06, 0.0))),
    "row of cells": (2, 6, lambda digits, rng: in_form(digits, rng, "cells")),
    "separate boxes": (2, 6, lambda digits, rng: in_form(digits, rng, "boxes")),
    "comb": (2, 6, lambda digits, rng: in_form(digits, rng, "comb")),
    "underlined number": (2, 6, lambda digits, rng: marked(digits, rng, "underline")),
    "plotted images": (2, 6, plotted_number),
    "circled number": (2, 4, lambda digits, rng: marked(digits, rng, "ellipse")),
}
"""Condition → smallest and largest number of digits, the picture of given digits."""
