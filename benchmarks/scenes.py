"""Random pictures of single digits and of blank sheets: paper, light, printed lines and camera.

Each function takes strokes and a random generator, and returns an RGBA canvas, uint8 (H, W, 4). Those of BLANK also
take None for a sheet without a digit.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks import paper as p
from benchmarks.note_scenes import on_note, on_small_note
from benchmarks.plotted_scenes import on_label, plotted
from benchmarks.rasteriser import Drawing
from benchmarks.strokes import Strokes

Rng = np.random.Generator
nan = float("nan")


def pen(rng: Rng, width: int, height: int, **changes: object) -> Drawing:
    """A drawing of random size, place, brush, slant and rotation; `changes` replace its fields."""
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


def grey_sheet(strokes: Strokes | None, side: int, ink: tuple[float, float], rng: Rng) -> np.ndarray:
    """Evenly lit grey paper with grain, (side, side) in 0 … 255; `ink`: range of the strokes' grey value."""
    sheet = rng.uniform(170, 220) + p.grain((side, side), rng.uniform(0, 2), rng)
    return (
        sheet if strokes is None else p.inked(sheet, p.coverage(strokes, pen(rng, side, side), rng), rng.uniform(*ink))
    )


def on_vignette(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    side = int(rng.integers(200, 360))
    sheet = grey_sheet(strokes, side, (60, 110), rng)
    return p.rgba(sheet * p.vignette((side, side), rng.uniform(0.6, 0.85)))


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
    """A thin dark frame, at the border or slightly inside."""
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
    """A dark bar along one side, as from a neighbouring object."""
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
    sheet = grey_sheet(strokes, side, (70, 125), rng)
    dark = p.shadow(
        (side, side), rng.uniform(0.75, 0.9), rng.uniform(0.15, 0.6), rng.uniform(0, 7), rng.uniform(-0.4, 0.4)
    )
    return p.photographed(p.rgba(sheet * dark), rng, rng.uniform(0, 1))


def sharp_shadow(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    """The deep shadow of a hand or a phone on tinted paper, often across the digit."""
    height, width = (int(side) for side in rng.integers(200, 480, 2))
    size = (height, width)
    sheet = rng.uniform(170, 230) + p.grain(size, rng.uniform(0, 2), rng)
    if strokes is not None:
        sheet = p.inked(sheet, p.coverage(strokes, pen(rng, width, height), rng), rng.uniform(20, 80))
    sheet = sheet * p.cast_shadow(size, rng.uniform(0.35, 0.7), rng.uniform(0.01, 0.1), rng)
    sheet = sheet * p.slope(size, rng.uniform(0, 0.1), rng.uniform(0, 7))
    canvas = p.rgba(sheet, tuple(rng.uniform(0.88, 1, 3)))
    return p.photographed(canvas, rng, rng.uniform(0, 1.2), rng.uniform(0, 3), int(rng.integers(60, 95)))


def pencil(strokes: Strokes | None, rng: Rng) -> np.ndarray:
    """Light that decreases strongly and linearly."""
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


def tiny_and_tight(strokes: Strokes, rng: Rng) -> np.ndarray:
    """Cropped to the ink and reduced to 8 … 14 pixels, such as scikit-learn's digits."""
    canvas = tight(strokes, rng, brush=0.8 * rng.uniform(0.1, 0.16))
    if rng.random() < 0.5:
        canvas[:, :, :3] = 255 - canvas[:, :, :3]
    side = int(rng.integers(8, 15))
    sides = [max(8, round(side * length / max(canvas.shape[:2]))) for length in canvas.shape[1::-1]]
    return np.array(Image.fromarray(canvas).resize((sides[0], sides[1]), Image.Resampling.BOX))


def tight(strokes: Strokes, rng: Rng, **changes: float) -> np.ndarray:
    """Cropped to the ink, with almost no paper around it."""
    side = int(rng.integers(60, 300))
    sheet = np.full((side, side), rng.uniform(200, 255))
    drawing = pen(rng, side, side, size=0.8, centre=(0.5, 0.5), **changes)
    covered = p.coverage(strokes, drawing, rng)
    margin = int(rng.uniform(0, 0.05) * side)
    inked = (np.flatnonzero(covered.max(axis) > 0.3) for axis in (1, 0))
    cut = tuple(slice(max(at[0] - margin, 0), at[-1] + 1 + margin) for at in inked)
    canvas = p.rgba(p.inked(sheet, covered, rng.uniform(0, 80))[cut])
    short = max(8 - min(canvas.shape[:2]), 0)
    return np.pad(canvas, ((0, short), (0, short), (0, 0)), "edge")


def small_on_large(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A small digit on a large photo."""
    height, width = size = (900, 1200) if rng.random() < 0.5 else (1200, 900)
    sheet = rng.uniform(170, 220) * p.vignette(size, rng.uniform(0.75, 1))
    drawing = pen(rng, width, height, size=rng.uniform(0.08, 0.25))
    sheet = p.inked(sheet, p.coverage(strokes, drawing, rng), rng.uniform(30, 90))
    return p.photographed(p.rgba(sheet), rng, rng.uniform(0, 1.5), rng.uniform(0, 3), 85)


def clean(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A drawing on a plain canvas of any size, at any place, with a thin or thick pen."""
    side = int(rng.choice([28, 56, 112, 280, 280, 640]))
    drawing = pen(rng, side, side, size=rng.uniform(0.35, 0.9))
    covered = p.coverage(strokes, drawing, rng)
    ink, sheet = (0, 255) if rng.random() < 0.7 else (255, 0)
    return p.rgba(p.inked(np.full((side, side), float(sheet)), covered, ink))


SINGLE: dict[str, Callable[[Strokes, Rng], np.ndarray]] = {
    "clean canvas": clean,
    "tight crop": tight,
    "tight crop, 8 … 14 pixels": tiny_and_tight,
    "vignette": on_vignette,
    "underlined": underlined,
    "thin frame": framed,
    "grey sides": grey_sides,
    "dark bar": barred,
    "scanned cell": scanned_cell,
    "newsprint cell": newsprint,
    "soft shadow": soft_shadow,
    "sharp shadow": sharp_shadow,
    "pencil, falling light": pencil,
    "ruled or squared": on_ruled,
    "frame on dark board": on_board,
    "phone": phone,
    "sliver": sliver,
    "specks": speckled,
    "small on a large photo": small_on_large,
    "note on something else": on_note,
    "small note": on_small_note,
    "plotted image": plotted,
    "flat label": on_label,
}
BLANK: dict[str, Callable[[Strokes | None, Rng], np.ndarray]] = {
    "blank, vignette": on_vignette,
    "blank, shadow": soft_shadow,
    "blank, sharp shadow": sharp_shadow,
    "blank, falling light": pencil,
    "blank, phone": phone,
}
