"""Random pictures of numbers in printed forms, as RGBA canvases, uint8 (H, W, 4): a cell, a box or a comb per digit."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks import paper as p
from benchmarks.rasteriser import Drawing
from benchmarks.strokes import Strokes

Rng = np.random.Generator


def in_form(digits: Sequence[Strokes], rng: Rng, kind: str) -> np.ndarray:
    """A number in a form of the given kind, "cells", "boxes" or "comb"; half of the pictures are photos."""
    height = int(rng.integers(60, 120))
    width = int(height * rng.uniform(0.75, 1.1))
    step = width + int(width * rng.uniform(0.1, 0.35) * (kind == "boxes"))
    margin, thick = int(height * rng.uniform(0.15, 0.8)), int(rng.integers(1, 4))
    size = (height + 2 * margin + thick, len(digits) * step + 2 * margin + thick)
    printed, written = np.zeros(size), np.zeros(size)
    brush = height * rng.uniform(0.035, 0.07)
    for place, strokes in enumerate(digits):
        left = margin + place * step
        if kind == "comb":
            printed[margin + height :][:thick, left : left + step + thick] = 1
            for tick in (left, left + step):
                printed[margin + int(0.7 * height) : margin + height, tick : tick + thick] = 1
        else:
            cell = printed[margin : margin + height + thick, left : left + width + thick]
            cell[:thick] = cell[-thick:] = cell[:, :thick] = cell[:, -thick:] = 1
        piece = digit(strokes, height * rng.uniform(0.45, 0.7), brush, (0.9 * width, 0.9 * height), rng)
        room = np.array([height - piece.shape[0], width - piece.shape[1]])
        away = (room / 2 + rng.uniform(-0.06, 0.06, 2) * (height, width)).astype(int)
        top, start = margin + away[0], left + away[1]
        view = written[top : top + piece.shape[0], start : start + piece.shape[1]]
        np.maximum(view, piece, out=view)
    return _finished(printed, written, rng)


def marked(digits: Sequence[Strokes], rng: Rng, kind: str) -> np.ndarray:
    """A number with an "underline" a little longer than itself, or in an "ellipse"."""
    tall = int(rng.integers(50, 130))
    brush, gap = tall * rng.uniform(0.06, 0.11), int(rng.uniform(0.12, 0.5) * tall)
    pieces = [digit(strokes, tall, brush, (np.inf, np.inf), rng) for strokes in digits]
    width = sum(piece.shape[1] + gap for piece in pieces) - gap
    margin = int(rng.uniform(0.3, 0.8) * max(tall, 0.5 * width * (kind == "ellipse")))
    size = (int(1.2 * tall) + 2 * margin, width + 2 * margin)
    written = np.zeros(size)
    left = margin
    for piece in pieces:
        top = (size[0] - piece.shape[0]) // 2
        view = written[top : top + piece.shape[0], left : left + piece.shape[1]]
        np.maximum(view, piece, out=view)
        left += piece.shape[1] + gap
    rows = np.flatnonzero(written.max(1) > 0.1)
    if kind == "underline":
        line = p.line(size, rows[-1] + rng.uniform(3, 12), rng.uniform(1.5, 4), rng.uniform(-0.03, 0.03) * size[1])
        line[:, : margin - int(rng.integers(0, 20))] = line[:, size[1] - margin + int(rng.integers(0, 20)) :] = 0
    else:
        y, x = np.mgrid[: size[0], : size[1]]
        radii = rng.uniform(0.8, 0.95) * tall, (0.5 + rng.uniform(0.2, 0.25)) * width
        away = np.hypot((y - size[0] / 2) / radii[0], (x - size[1] / 2) / radii[1]) - 1
        line = np.clip(2 - abs(away) * min(radii), 0, 1)
    return _finished(np.zeros(size), np.maximum(written, line), rng)


def digit(strokes: Strokes, tall: float, brush: float, most: tuple[float, float], rng: Rng) -> np.ndarray:
    """Coverage by a digit about `tall` pixels high, cropped, and at most `most` wide and high."""
    high = int(tall * rng.uniform(0.85, 1.1))
    drawing = Drawing(
        width=2 * high, height=2 * high, size=0.5, brush=brush / (2 * high), rotation=float(rng.uniform(-6, 6)),
        slant=float(rng.uniform(-5, 10)),
    )  # fmt: skip
    covered = p.coverage(strokes, drawing, rng)
    rows, columns = np.flatnonzero(covered.max(1) > 0.1), np.flatnonzero(covered.max(0) > 0.1)
    piece = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(1, most[0] / piece.shape[1], most[1] / piece.shape[0])
    if scale == 1:
        return piece
    size = int(piece.shape[1] * scale), int(piece.shape[0] * scale)
    return np.asarray(Image.fromarray((255 * piece).astype(np.uint8)).resize(size)) / 255


def _finished(printed: np.ndarray, written: np.ndarray, rng: Rng) -> np.ndarray:
    """The form and the ink on white, or photographed on paper."""
    size = printed.shape
    if rng.random() < 0.5:
        return p.rgba(p.inked(p.inked(np.full(size, 255.0), printed, rng.uniform(0, 150)), written, 0))
    sheet = p.inked(rng.uniform(160, 220) + p.grain(size, rng.uniform(0, 3), rng), printed, rng.uniform(60, 150))
    light = p.vignette(size, rng.uniform(0.75, 1)) * p.slope(size, rng.uniform(0, 0.15), rng.uniform(0, 7))
    sheet = p.inked(sheet, written, rng.uniform(30, 90)) * light
    return p.photographed(p.rgba(sheet), rng, rng.uniform(0, 1), rng.uniform(0, 3), 85)
