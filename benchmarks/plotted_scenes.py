"""Random matplotlib figures of digits, and digits on flat labels, as RGBA canvases, uint8 (H, W, 4)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from benchmarks import paper as p
from benchmarks.rasteriser import Drawing
from benchmarks.strokes import Strokes

Rng = np.random.Generator
COLOUR_MAPS = ("gray", "gray", "gray_r", "viridis", "viridis", "magma", "inferno", "plasma", "cividis", "bone", "Blues")


def plotted(strokes: Strokes, rng: Rng) -> np.ndarray:
    """One digit, with or without ticks, title and colour bar, of any size and colour map."""
    figure = Figure(figsize=tuple(rng.uniform(2, 6.4, 2)), facecolor=rng.choice(["white", "white", "white", "#111122"]))
    axes = figure.add_subplot()
    image = axes.imshow(_image(strokes, rng), cmap=rng.choice(COLOUR_MAPS))
    axes.axis("off" if rng.random() < 0.5 else "on")
    if rng.random() < 0.4:
        axes.set_title(f"label {rng.integers(10)}")
    if rng.random() < 0.2:
        figure.colorbar(image)
    return _drawn(figure)


def plotted_number(digits: Sequence[Strokes], rng: Rng) -> np.ndarray:
    """Several digits in a row or in two, one image each."""
    rows = 2 if len(digits) in (4, 6) and rng.random() < 0.5 else 1
    columns = len(digits) // rows
    figure = Figure(figsize=(columns * rng.uniform(1.4, 2), rows * rng.uniform(1.6, 2)))
    colours = rng.choice(COLOUR_MAPS)
    for axes, strokes in zip(np.ravel(figure.subplots(rows, columns)), digits, strict=True):
        axes.imshow(_image(strokes, rng), cmap=colours)
        axes.axis("off")
    return _drawn(figure)


def on_label(strokes: Strokes, rng: Rng) -> np.ndarray:
    """A rectangle, rounded rectangle or disc of one colour, on another colour."""
    side = int(rng.integers(160, 480))
    ground, label, ink = _colours(rng)
    length = int(side * rng.uniform(0.4, 0.92))
    shape = Image.new("L", (4 * length, 4 * length))
    corner = rng.choice([0.0, 0.0, rng.uniform(0.05, 0.25), 0.5]) * length  # 0.5: a disc
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, 4 * length - 1, 4 * length - 1), 4 * corner, fill=255)
    cover = np.zeros((side, side))
    y, x = rng.integers(2, side - length - 1, 2)
    cover[y : y + length, x : x + length] = np.asarray(shape.resize((length, length), Image.Resampling.BOX)) / 255
    size = rng.uniform(0.45, 0.55 if corner > 0.3 * length else 0.75) * length / side
    centre = ((x + length / 2) / side, (y + length / 2) / side)
    drawing = Drawing(width=side, height=side, size=size, brush=size * rng.uniform(0.07, 0.15), centre=centre)
    picture = ground * (1 - cover[:, :, None]) + label * cover[:, :, None]
    picture = p.inked(picture, p.coverage(strokes, drawing, rng)[:, :, None], ink)
    return np.dstack((picture.round(), np.full((side, side), 255))).astype(np.uint8)


def _image(strokes: Strokes, rng: Rng) -> np.ndarray:
    """Strokes → an image as in MNIST, (28, 28) in [0, 1], ink bright."""
    return p.coverage(strokes, Drawing(width=28, height=28, size=20 / 28, brush=rng.uniform(0.07, 0.12)), rng)


def _drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def _colours(rng: Rng) -> np.ndarray:
    """RGB of ground, label and ink, (3, 3) in 0 … 255. The label differs clearly from both others."""
    while True:
        colours = rng.integers(0, 256, (3, 3)).astype(float)
        if abs(colours[1] - colours[0]).max() > 70 and abs(colours[1] - colours[2]).max() > 110:
            return colours
