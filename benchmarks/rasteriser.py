"""Draws strokes on a canvas as a browser does, in any colour, position and size."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from PIL import Image

from benchmarks.strokes import STEP, Strokes, resample

Colour = tuple[int, int, int, int]  # RGBA, 0 … 255
BLACK: Colour = (0, 0, 0, 255)
WHITE: Colour = (255, 255, 255, 255)


@dataclass(frozen=True)
class Drawing:
    """How to draw strokes. Width and height in pixels; `brush` and `size` as shares of the shorter side."""

    width: int = 280
    height: int = 280
    brush: float = 0.06
    size: float = 0.65  # longer side of the ink's box
    centre: tuple[float, float] = (0.5, 0.5)  # of the ink's box, in shares of width and height
    rotation: float = 0.0  # degrees, clockwise
    slant: float = 0.0  # degrees, to the right
    shake: float = 0.0  # standard deviation of the hand's tremor, as a share of the digit's longer side
    pen: Colour = BLACK
    paper: Colour = WHITE
    jpeg: int | None = None  # quality; only on opaque paper


def draw(strokes: Strokes, drawing: Drawing, rng: np.random.Generator) -> np.ndarray:
    """Strokes → canvas, uint8 (H, W, 4), antialiased with round caps and joins. `rng` is for the tremor.

    Raises:
        ValueError: no stroke, or a digit no larger than the brush.
    """
    brush = drawing.brush * min(drawing.width, drawing.height)
    pixels = _coverage(place(strokes, drawing, rng), drawing, brush)
    canvas = _palette(drawing.pen, drawing.paper)[pixels].view(np.uint8).reshape(*pixels.shape, 4)
    return canvas if drawing.jpeg is None else _through_jpeg(canvas, drawing.jpeg)


def place(strokes: Strokes, drawing: Drawing, rng: np.random.Generator) -> Strokes:
    """Strokes in digit pixels → in canvas pixels: shaken, slanted, rotated and scaled to fill the box of the ink."""
    if not strokes:
        raise ValueError("strokes: expected at least one, received none; is the digit blank?")
    shorter = min(drawing.width, drawing.height)
    room = (drawing.size - drawing.brush) * shorter  # for the middle of the brush
    if room <= 0:
        raise ValueError(f"size: expected more than the brush, {drawing.brush}, received {drawing.size}")
    if drawing.shake:
        strokes = _shaken(strokes, drawing.shake, rng)
    angle = np.radians(drawing.rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lean = np.array([[1, -np.tan(np.radians(drawing.slant))], [0, 1]])
    moved = [stroke @ (turn @ lean).T for stroke in strokes]
    low, high = box(moved)
    scale = room / max(float((high - low).max()), 1e-6)
    at = np.array([drawing.width, drawing.height]) * drawing.centre
    return [(stroke - (low + high) / 2) * scale + at for stroke in moved]


def box(strokes: Strokes) -> tuple[np.ndarray, np.ndarray]:
    """(left, top) and (right, bottom) of the centre lines."""
    points = np.concatenate(strokes)
    return points.min(axis=0), points.max(axis=0)


def _shaken(strokes: Strokes, shake: float, rng: np.random.Generator) -> Strokes:
    """Displace strokes by noise that is smooth over about two digit pixels."""
    low, high = box(strokes)
    window = np.exp(-0.5 * np.linspace(-2, 2, 9) ** 2)
    window *= shake * (high - low).max() / np.sqrt((window**2).sum())
    moved = []
    for stroke in strokes:
        points = resample(stroke, STEP)
        noise = rng.standard_normal((2, len(points) + len(window) - 1))
        moved.append(points + np.stack([np.convolve(axis, window, "valid") for axis in noise], axis=1))
    return moved


def _coverage(strokes: Strokes, drawing: Drawing, brush: float) -> np.ndarray:
    """Strokes in canvas pixels → uint8 (H, W), 255 where the brush covers all of a pixel."""
    vertices, codes = [], []
    for stroke in strokes:
        line = stroke if len(stroke) > 1 else np.concatenate([stroke, stroke + 0.01])  # a single point has no caps
        vertices.append(line * (1, -1) + (0, drawing.height))  # the renderer's y points up
        codes += [Path.MOVETO] + [Path.LINETO] * (len(line) - 1)
    path = Path(np.concatenate(vertices), codes)
    path.should_simplify = False
    renderer = RendererAgg(drawing.width, drawing.height, dpi=72)  # a point is a pixel
    pen = renderer.new_gc()
    pen.set_linewidth(brush)
    pen.set_capstyle("round")
    pen.set_joinstyle("round")
    pen.set_snap(False)
    renderer.draw_path(pen, path, IdentityTransform())
    return np.asarray(renderer.buffer_rgba())[:, :, 3]


@lru_cache
def _palette(pen: Colour, paper: Colour) -> np.ndarray:
    """uint32 (256,), four bytes RGBA each: `pen` over `paper`, by coverage."""
    cover = np.arange(256)[:, None] / 255 * pen[3] / 255
    beneath = paper[3] / 255 * (1 - cover)
    alpha = cover + beneath
    colour = (cover * pen[:3] + beneath * paper[:3]) / np.maximum(alpha, 1e-9)
    return np.concatenate([colour, alpha * 255], axis=1).round().astype(np.uint8).view(np.uint32)[:, 0]


def _through_jpeg(canvas: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(canvas[:, :, :3]).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGBA"))
