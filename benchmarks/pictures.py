"""How well exported models read what people photograph, scan and crop: MNIST's test digits on models of real paper.

python -m benchmarks.pictures [--model FOLDER]… [--pictures N] [--data-root DIR]

Each condition draws its paper, light, pen, print and camera at random. Of single digits it counts how many are read,
and how many are read wrongly at 90 % or more; of numbers, how many are read whole, doubted or wrong; of blank sheets,
how many are called blank. Only digits that are read when drawn plainly are used.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import paper as p
from benchmarks import write
from benchmarks.drawing import choose, score
from benchmarks.rasteriser import Drawing, draw
from benchmarks.strokes import Strokes, vectorise
from bnmodel import data
from bnmodel.deploy.errors import ExportError
from export.recogniser import Recognizer, available, load

Rng = np.random.Generator
Single = Callable[[Strokes, Rng], np.ndarray]
nan = float("nan")


def pen(rng: Rng, width: int, height: int, **changes: object) -> Drawing:
    """A hand: size, place, brush, slant and turn at random."""
    size = float(changes.pop("size", rng.uniform(0.4, 0.75)))  # type: ignore[arg-type]
    room = (1 - size) / 2 - 0.03
    brush = size * rng.uniform(0.05, 0.13)
    brush = max(brush, 2.0 / min(width, height))
    off = rng.uniform(-1, 1, 2) * max(room, 0) * 0.6
    shift = off * min(width, height) / np.array([width, height])
    values = dict(
        width=width,
        height=height,
        size=size,
        brush=brush,
        centre=(0.5 + float(shift[0]), 0.5 + float(shift[1])),
        rotation=float(rng.uniform(-8, 8)),
        slant=float(rng.uniform(-8, 12)),
    )
    return Drawing(**(values | changes))  # type: ignore[arg-type]


def on_vignette(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    side = int(rng.integers(200, 360))
    size = (side, side)
    sheet = rng.uniform(170, 220) + p.grain(size, rng.uniform(0, 2), rng)
    if strokes is not None:
        sheet = p.inked(sheet, p.coverage(strokes, pen(rng, side, side), rng), rng.uniform(60, 110))
    return p.rgba(sheet * p.vignette(size, rng.uniform(0.6, 0.85)))


def underlined(strokes: Strokes, rng: Rng) -> np.ndarray:
    side = int(rng.integers(50, 140))
    size = (side, side)
    sheet = rng.uniform(150, 230) + p.grain(size, rng.uniform(0, 3), rng)
    ink = rng.uniform(60, 100)
    drawing = pen(rng, side, side, size=rng.uniform(0.45, 0.65))
    covered = p.coverage(strokes, drawing, rng)
    bottom = np.flatnonzero(covered.max(1) > 0.5).max()
    gap = rng.uniform(1, 0.08 * side) + 2
    under = p.line(size, min(bottom + gap, side - 2), rng.uniform(1.5, 4), rng.uniform(-0.03, 0.03) * side)
    sheet = p.inked(p.inked(sheet, under, ink + rng.uniform(0, 60)), covered, ink)
    return p.rgba(sheet)


def framed(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A thin dark frame all round, at the very border or a little inside."""
    side = int(rng.integers(64, 320))
    size = (side, side)
    covered = p.coverage(strokes, pen(rng, side, side, size=rng.uniform(0.4, 0.7)), rng)
    around = p.box(size, float(rng.choice([0, 0, rng.uniform(0, 0.06) * side])), rng.uniform(1, 0.012 * side + 1))
    return p.rgba(p.inked(p.inked(np.full(size, rng.uniform(200, 255)), around, rng.uniform(0, 80)), covered, 0))


def grey_sides(strokes: Strokes, rng: Rng) -> np.ndarray:
    side = int(rng.integers(28, 65))
    size = (side, side)
    sheet = np.full(size, 255.0)
    grey, width = rng.uniform(170, 225), int(rng.integers(1, 3))
    for edge in rng.permutation(4)[: rng.integers(1, 4)]:
        view = np.rot90(sheet, edge)
        view[:width] = grey
    return p.rgba(p.inked(sheet, p.coverage(strokes, pen(rng, side, side, size=rng.uniform(0.5, 0.75)), rng), 0))


def barred(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A dark bar along one side, as of a neighbouring object."""
    side = int(rng.integers(100, 320))
    size = (side, side)
    sheet = np.full(size, rng.uniform(200, 255))
    width = int(rng.uniform(0.02, 0.06) * side)
    np.rot90(sheet, int(rng.integers(4)))[:width] = rng.uniform(0, 120)
    return p.rgba(p.inked(sheet, p.coverage(strokes, pen(rng, side, side, size=rng.uniform(0.4, 0.7)), rng), 20))


def scanned_cell(strokes: Strokes, rng: Rng) -> np.ndarray:
    side = int(rng.integers(60, 160))
    size = (side, side)
    sheet = rng.uniform(180, 230) + p.grain(size, rng.uniform(1, 4), rng)
    heavy, thin = rng.uniform(0.03, 0.07) * side, rng.uniform(1, 0.025 * side + 1)
    edge = [nan] * 4
    for place in rng.permutation(4)[: rng.integers(1, 5)]:
        edge[place] = rng.uniform(0, 0.04) * side
    tilt = rng.uniform(-0.02, 0.02) * side
    for width, keep in ((heavy, (0, 2)), (thin, (1, 3))):
        insets = tuple(edge[i] if i in keep else nan for i in range(4))
        sheet = p.inked(sheet, p.frame(size, insets, width, tilt), rng.uniform(50, 160))  # type: ignore[arg-type]
    drawing = pen(rng, side, side, size=rng.uniform(0.45, 0.72))
    sheet = p.inked(sheet, p.coverage(strokes, drawing, rng), rng.uniform(60, 115))
    return p.photographed(p.rgba(sheet), rng, rng.uniform(0, 0.8), quality=int(rng.integers(60, 95)))


def newsprint(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A cell of a printed puzzle: grey, coarse paper, thin lines on some sides, a ballpoint pen."""
    side = int(rng.integers(40, 120))
    size = (side, side)
    sheet = rng.uniform(150, 200) + p.grain(size, rng.uniform(2, 6), rng) + p.grain(size, rng.uniform(1, 4), rng, 3)
    left, right, top, bottom = (nan if rng.random() < 0.35 else rng.uniform(0, 0.08) * side for _ in range(4))
    sheet = p.inked(
        sheet,
        p.frame(size, (left, right, top, bottom), rng.uniform(1, 3), rng.uniform(-0.04, 0.04) * side),
        rng.uniform(40, 110),
    )
    covered = p.coverage(strokes, pen(rng, side, side, size=rng.uniform(0.45, 0.7)), rng)
    sheet = p.inked(sheet, covered, rng.uniform(40, 90)) * p.slope(size, rng.uniform(0, 0.1), rng.uniform(0, 7))
    return p.photographed(p.rgba(sheet, (1, 0.98, 0.93)), rng, rng.uniform(0.3, 0.9), rng.uniform(0, 3), 85)


def soft_shadow(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    side = int(rng.integers(150, 400))
    size = (side, side)
    sheet = rng.uniform(170, 220) + p.grain(size, rng.uniform(0, 2), rng)
    if strokes is not None:
        sheet = p.inked(sheet, p.coverage(strokes, pen(rng, side, side), rng), rng.uniform(70, 125))
    dark = p.shadow(size, rng.uniform(0.75, 0.9), rng.uniform(0.15, 0.6), rng.uniform(0, 7), rng.uniform(-0.4, 0.4))
    return p.photographed(p.rgba(sheet * dark), rng, rng.uniform(0, 1))


def pencil(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    """A strong linear fall of light."""
    side = int(rng.integers(150, 400))
    size = (side, side)
    sheet = np.full(size, rng.uniform(165, 195)) * p.slope(size, rng.uniform(0.1, 0.24), rng.uniform(0, 7))
    if strokes is not None:
        sheet = p.inked(sheet, p.coverage(strokes, pen(rng, side, side), rng), rng.uniform(45, 80))
    return p.rgba(sheet + p.grain(size, rng.uniform(0, 2), rng))


def on_ruled(strokes: Strokes, rng: Rng) -> np.ndarray:
    """Ruled or squared paper under a strong pen, in uneven light."""
    side = int(rng.integers(120, 400))
    size = (side, side)
    sheet = rng.uniform(205, 245) + p.grain(size, rng.uniform(0, 2), rng)
    lines = p.ruled(size, rng.uniform(0.1, 0.35) * side, rng.uniform(1, 0.008 * side + 1), rng, rng.random() < 0.5)
    sheet = p.inked(sheet, lines, rng.uniform(150, 190))
    sheet = p.inked(sheet, p.coverage(strokes, pen(rng, side, side), rng), rng.uniform(10, 70))
    light = p.slope(size, rng.uniform(0, 0.15), rng.uniform(0, 7)) * p.vignette(size, rng.uniform(0.8, 1))
    return p.photographed(p.rgba(sheet * light), rng, rng.uniform(0, 0.8), quality=80)


def on_board(strokes: Strokes, rng: Rng) -> np.ndarray:
    """Chalk on an uneven dark board, inside a coloured frame."""
    side = int(rng.integers(90, 300))
    size = (side, side)
    board = rng.uniform(40, 80) * p.slope(size, rng.uniform(0.1, 0.35), rng.uniform(0, 7))
    board = board + p.grain(size, rng.uniform(1, 3), rng) + p.grain(size, rng.uniform(1, 4), rng, 5)
    covered = p.coverage(strokes, pen(rng, side, side, size=rng.uniform(0.35, 0.6)), rng)
    canvas = p.rgba(p.inked(board, covered, rng.uniform(150, 230)))
    around = p.box(size, rng.uniform(0, 0.08) * side, rng.uniform(0.01, 0.03) * side)[:, :, None]
    colour = rng.uniform(60, 255, 3) * rng.permutation([1, 1, 0.3])
    canvas[:, :, :3] = (canvas[:, :, :3] * (1 - around) + colour * around).astype(np.uint8)
    return p.photographed(canvas, rng, rng.uniform(0.3, 1), rng.uniform(0, 2), 85)


def phone(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    """A photo of a plain sheet: any light, blur, noise, compression and aspect ratio."""
    height, width = (int(side) for side in rng.integers(240, 900, 2))
    size = (height, width)
    sheet = rng.uniform(140, 220) + p.grain(size, rng.uniform(0, 3), rng)
    if strokes is not None:
        sheet = p.inked(sheet, p.coverage(strokes, pen(rng, width, height), rng), rng.uniform(20, 80))
    light = p.vignette(size, rng.uniform(0.7, 1)) * p.slope(size, rng.uniform(0, 0.2), rng.uniform(0, 7))
    if rng.random() < 0.5:
        light = light * p.shadow(
            size, rng.uniform(0.75, 1), rng.uniform(0.1, 0.6), rng.uniform(0, 7), rng.uniform(-0.5, 0.5)
        )
    tint = tuple(rng.uniform(0.85, 1, 3))
    canvas = p.rgba(np.clip(sheet * light, 0, 255), tint)
    return p.photographed(canvas, rng, rng.uniform(0, 2), rng.uniform(0, 5), int(rng.integers(40, 95)))


def sliver(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A piece of a line at one or two edges of a small crop."""
    side = int(rng.integers(28, 120))
    size = (side, side)
    sheet = rng.uniform(190, 255) + p.grain(size, rng.uniform(0, 3), rng)
    ink = rng.uniform(10, 90)
    for edge in rng.permutation(4)[: rng.integers(1, 3)]:
        start = rng.uniform(0, 0.5) * side
        end = min(side, start + rng.uniform(0.3, 0.9) * side)
        width = max(1, round(rng.uniform(0.01, 0.05) * side))
        np.rot90(sheet, edge)[:width, int(start) : int(end)] = ink + rng.uniform(0, 60)
    return p.rgba(p.inked(sheet, p.coverage(strokes, pen(rng, side, side, size=rng.uniform(0.5, 0.72)), rng), ink))


def speckled(strokes: Strokes, rng: Rng) -> np.ndarray:
    side = int(rng.integers(150, 400))
    size = (side, side)
    dirt = p.specks(size, int(rng.integers(1, 25)), rng.uniform(1, 0.016 * side), rng)
    sheet = p.inked(np.full(size, rng.uniform(200, 255)), dirt, rng.uniform(0, 100))
    return p.rgba(p.inked(sheet, p.coverage(strokes, pen(rng, side, side), rng), rng.uniform(0, 60)))


def tight(strokes: Strokes, rng: Rng) -> np.ndarray:
    """Cropped to the ink, with hardly any paper around it."""
    side = int(rng.integers(60, 300))
    sheet = np.full((side, side), rng.uniform(200, 255))
    drawing = pen(rng, side, side, size=0.8, centre=(0.5, 0.5))
    covered = p.coverage(strokes, drawing, rng)
    rows, columns = np.flatnonzero(covered.max(1) > 0.3), np.flatnonzero(covered.max(0) > 0.3)
    margin = int(rng.uniform(0, 0.05) * side)
    cut = np.s_[
        max(rows[0] - margin, 0) : rows[-1] + 1 + margin, max(columns[0] - margin, 0) : columns[-1] + 1 + margin
    ]
    canvas = p.rgba(p.inked(sheet, covered, rng.uniform(0, 80))[cut])
    short = 8 - min(canvas.shape[:2])
    return np.pad(canvas, ((0, max(short, 0)), (0, max(short, 0)), (0, 0)), "edge") if short > 0 else canvas


def small_on_large(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A small digit on a large photo."""
    height, width = (900, 1200) if rng.random() < 0.5 else (1200, 900)
    size = (height, width)
    sheet = rng.uniform(170, 220) * p.vignette(size, rng.uniform(0.75, 1))
    drawing = pen(rng, width, height, size=rng.uniform(0.08, 0.25))
    sheet = p.inked(sheet, p.coverage(strokes, drawing, rng), rng.uniform(30, 90))
    return p.photographed(p.rgba(sheet), rng, rng.uniform(0, 1.5), rng.uniform(0, 3), 85)


def clean(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A drawing on a canvas of any size, pen thin or thick, place anywhere."""
    side = int(rng.choice([28, 56, 112, 280, 280, 640]))
    drawing = pen(rng, side, side, size=rng.uniform(0.35, 0.9))
    covered = p.coverage(strokes, drawing, rng)
    ink, sheet = (0, 255) if rng.random() < 0.7 else (255, 0)
    return p.rgba(p.inked(np.full((side, side), float(sheet)), covered, ink))


SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


def led(label: int, rng: Rng) -> np.ndarray:
    """A seven-segment display: bright segments with gaps on a dark ground, faint segments that are off."""
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


SINGLE: dict[str, Single] = {
    "clean canvas": clean,
    "tight crop": tight,
    "vignette": on_vignette,
    "underlined": underlined,
    "thin frame": framed,
    "grey sides": grey_sides,
    "dark bar": barred,
    "scanned cell": scanned_cell,
    "newsprint cell": newsprint,
    "soft shadow": soft_shadow,
    "pencil, falling light": pencil,
    "ruled or squared": on_ruled,
    "frame on dark board": on_board,
    "phone": phone,
    "sliver": sliver,
    "specks": speckled,
    "small on a large photo": small_on_large,
}
BLANK: dict[str, Callable[[Strokes | None, Rng], np.ndarray]] = {
    "blank, vignette": on_vignette,
    "blank, shadow": soft_shadow,
    "blank, falling light": pencil,
    "blank, phone": phone,
}


# --- numbers ---------------------------------------------------------------------------------------------------------


def number(digits: Sequence[Strokes], rng: Rng, gap: tuple[float, float], photo: bool = False) -> np.ndarray:
    """Digits in a row; `gap` between the ink of neighbours, as a share of their height (negative: overlapping)."""
    tall = int(rng.integers(50, 130))
    pieces = []
    brush = tall * rng.uniform(0.06, 0.11)
    for strokes in digits:
        high = int(tall * rng.uniform(0.85, 1.1))
        side = 2 * high
        drawing = Drawing(
            width=side, height=side, size=high / side, brush=brush / side, rotation=float(rng.uniform(-6, 6)),
            slant=float(rng.uniform(-5, 10)),
        )  # fmt: skip
        covered = p.coverage(strokes, drawing, rng)
        rows, columns = np.flatnonzero(covered.max(1) > 0.1), np.flatnonzero(covered.max(0) > 0.1)
        pieces.append(covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
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


NUMBERS: dict[str, tuple[tuple[int, int], tuple[float, float], bool]] = {
    "two digits, apart": ((2, 2), (0.15, 0.6), False),
    "two digits, close": ((2, 2), (0.05, 0.15), False),
    "two to six digits": ((2, 6), (0.12, 0.5), False),
    "photo of a number": ((2, 6), (0.12, 0.5), True),
    "touching digits": ((2, 3), (-0.06, 0.0), False),
}
"""Digits, from and to; gap as a share of the height, from and to; photographed."""


# --- measuring -------------------------------------------------------------------------------------------------------

SEED = 0
SURE = 0.9


def readable(digits: data.Digits, model: Recognizer, count: int) -> list[tuple[Strokes, int]]:
    """`count` test digits as strokes with their labels, without those that are misread when drawn plainly."""
    found: list[tuple[Strokes, int]] = []
    rng = np.random.default_rng(SEED)
    for index in rng.permutation(choose(digits.labels.numpy(), min(2 * count, len(digits.labels)), rng)):
        strokes, label = vectorise(digits.images[index, 0].numpy()), int(digits.labels[index])
        if strokes and model.read(draw(strokes, Drawing(), rng)).label == label:
            found.append((strokes, label))
        if len(found) == count:
            break
    return found


def read_single(model: Recognizer, name: str, chosen: Sequence[tuple[Strokes, int]]) -> dict[str, Any]:
    right, sure = [], []
    for place, (strokes, label) in enumerate(chosen):
        rng = np.random.default_rng((SEED, place))
        picture = led(label, rng) if name == "display" else SINGLE[name](strokes, rng)
        answer, number = model.read(picture), model.read_numbers(picture)
        several = number.too_many or len(number.digits) > 1  # then `/predict` has no label
        wrong = answer.label != label
        right.append(not wrong and not several)
        sure.append(wrong and not several and not answer.blank and float(answer.probabilities.max()) >= SURE)
    return {**asdict(score(np.array(right))), "sure_and_wrong": float(np.mean(sure))}


def read_blank(model: Recognizer, name: str, count: int) -> dict[str, Any]:
    blank = [model.read(BLANK[name](None, np.random.default_rng((SEED, place)))).blank for place in range(count)]
    return asdict(score(np.array(blank)))


def read_numbers(model: Recognizer, name: str, chosen: Sequence[tuple[Strokes, int]]) -> dict[str, Any]:
    (least, most), gap, photo = NUMBERS[name]
    right, doubted, alone = [], [], []
    for place in range(len(chosen)):
        rng = np.random.default_rng((SEED, place))
        picked = [chosen[i] for i in rng.integers(0, len(chosen), rng.integers(least, most + 1))]
        read = model.read_numbers(number([strokes for strokes, _ in picked], rng, gap, photo))
        right.append(read.text == "".join(str(label) for _, label in picked))
        doubted.append(read.text is None)
        alone.append(len(read.digits) == 1 and read.digits[0].probability >= SURE)
    return {
        **asdict(score(np.array(right))),
        "doubted": float(np.mean(doubted)),
        "read_as_one_sure_digit": float(np.mean(alone)),
    }


def run(model: Recognizer, digits: data.Digits, count: int) -> dict[str, Any]:
    """Measure all conditions and print a row per condition."""
    chosen = readable(digits, model, count)
    rows: dict[str, dict[str, Any]] = {}
    for name in (*SINGLE, "display", *BLANK, *NUMBERS):
        if name in BLANK:
            rows[name] = read_blank(model, name, count)
        elif name in NUMBERS:
            rows[name] = read_numbers(model, name, chosen)
        else:
            rows[name] = read_single(model, name, chosen)
        row = rows[name]
        others = "".join(f"  {key} {value:.1%}" for key, value in list(row.items())[5:])
        print(
            f"{name:26s}{row['n']:5d}  {row['accuracy']:7.2%} ({row['low']:.1%}…{row['high']:.1%}){others}", flush=True
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description="Read pictures of digits.")
    parser.add_argument("--model", type=Path, action="append", help="exported folder, repeatable; default: all")
    parser.add_argument("--pictures", type=int, default=200, help="per condition (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, default=data.default_data_root())
    options = parser.parse_args(arguments)
    if options.pictures < 10:
        parser.error(f"--pictures: expected 10 or more, received {options.pictures}")
    try:
        models = [load(folder) for folder in options.model or available()]
        digits = data.load_mnist(False, options.data_root)
    except (ExportError, data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = {}
    for model in models:
        print(f"== {model.name}")
        results[model.name] = run(model, digits, options.pictures)
    write("pictures", {"pictures": options.pictures, "seed": SEED, "models": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
