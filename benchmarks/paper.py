"""Models of light, paper, printed lines and cameras, for pictures of digits.

Arrays are float64 (H, W), brightness in 0 … 255 or coverage in 0 … 1.
"""

import io
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.rasteriser import Drawing, draw
from benchmarks.strokes import Strokes

Size = tuple[int, int]  # height, width
TRANSPARENT = (0, 0, 0, 0)


def coverage(strokes: Strokes, drawing: Drawing, rng: np.random.Generator) -> np.ndarray:
    """Share of every pixel that the pen covers."""
    return draw(strokes, replace(drawing, paper=TRANSPARENT, jpeg=None), rng)[:, :, 3] / 255


# --- light: factors --------------------------------------------------------------------------------------------------


def vignette(size: Size, corner: float) -> np.ndarray:
    """1 in the middle, decreasing with the square of the radius to `corner` in the corners."""
    y, x = _axes(size)
    return 1 - (1 - corner) * (x**2 + y**2) / 2


def slope(size: Size, span: float, angle: float) -> np.ndarray:
    """Linear from 1 + span to 1 - span in the direction `angle`, in radians."""
    y, x = _axes(size)
    way = x * np.cos(angle) + y * np.sin(angle)
    return 1 + span * way / abs(way).max()


def shadow(size: Size, factor: float, softness: float, angle: float, offset: float) -> np.ndarray:
    """1 on one side of a line, `factor` on the other. `softness`: width of the penumbra in half sides."""
    y, x = _axes(size)
    across = (x * np.cos(angle) + y * np.sin(angle) - offset) / max(softness, 1e-3)
    return 1 - (1 - factor) / (1 + np.exp(-np.clip(4 * across, -50, 50)))


def cast_shadow(size: Size, factor: float, softness: float, rng: np.random.Generator) -> np.ndarray:
    """1 in the light, `factor` in the shadow of a straight edge, a corner or a disc, at a random place."""
    y, x = _axes(size)
    angle = rng.uniform(0, 2 * np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    shapes = (
        along + rng.uniform(-0.4, 0.4),
        np.maximum(along, across) + rng.uniform(-0.4, 0.4),
        np.hypot(along - 1.2, across) - rng.uniform(0.6, 1.1),
    )
    beyond = shapes[rng.integers(3)]  # negative in the shadow
    return factor + (1 - factor) / (1 + np.exp(-np.clip(4 * beyond / softness, -50, 50)))


def _axes(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """-1 … 1 from top to bottom (H, 1) and from left to right (1, W)."""
    height, width = size
    return np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]


# --- paper and print: coverage ---------------------------------------------------------------------------------------


def grain(size: Size, deviation: float, rng: np.random.Generator, scale: int = 1) -> np.ndarray:
    """Gaussian noise of standard deviation `deviation` in squares of `scale` pixels."""
    height, width = size
    noise = rng.standard_normal((-(-height // scale), -(-width // scale)))
    return deviation * np.repeat(np.repeat(noise, scale, 0), scale, 1)[:height, :width]


def line(size: Size, position: float, width: float, tilt: float = 0.0, vertical: bool = False) -> np.ndarray:
    """A line from side to side at `position` pixels from the top (or left), `tilt` pixels lower at its end."""
    length, across = size if vertical else size[::-1]
    middle = position + tilt * (np.arange(length) / max(length - 1, 1) - 0.5)
    distance = abs(np.arange(across)[:, None] + 0.5 - middle[None])  # (across, length)
    drawn = np.clip((width + 1) / 2 - distance, 0, 1) * min(1, width)
    return drawn.T if vertical else drawn


def ruled(size: Size, pitch: float, width: float, rng: np.random.Generator, squared: bool = False) -> np.ndarray:
    """Parallel lines `pitch` pixels apart, in both directions if `squared`."""
    drawn = np.zeros(size)
    for vertical in (False, True) if squared else (False,):
        across = size[1] if vertical else size[0]
        tilt = rng.uniform(-0.02, 0.02) * max(size)
        for position in np.arange(rng.uniform(0, pitch), across, pitch):
            drawn = np.maximum(drawn, line(size, position, width, tilt, vertical))
    return drawn


def frame(size: Size, insets: tuple[float, float, float, float], width: float, tilt: float = 0.0) -> np.ndarray:
    """Lines from side to side at distances from the top, bottom, left and right border; nan for no line."""
    top, bottom, left, right = insets
    drawn = np.zeros(size)
    for position, vertical in ((top, False), (size[0] - bottom, False), (left, True), (size[1] - right, True)):
        if not np.isnan(position):
            drawn = np.maximum(drawn, line(size, position, width, tilt, vertical))
    return drawn


def box(size: Size, inset: float, width: float) -> np.ndarray:
    """A closed rectangle `inset` pixels from the border."""
    y = np.minimum(np.arange(size[0]) + 0.5, size[0] - np.arange(size[0]) - 0.5)[:, None]
    x = np.minimum(np.arange(size[1]) + 0.5, size[1] - np.arange(size[1]) - 0.5)[None]
    inside = np.minimum(y, x) - inset
    return np.clip(np.minimum(inside, width - inside) + 0.5, 0, 1)


def specks(size: Size, count: int, diameter: float, rng: np.random.Generator) -> np.ndarray:
    """Round dots at random positions."""
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    drawn = np.zeros(size)
    for _ in range(count):
        row, column = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        distance = np.hypot(y - row, x - column)
        drawn = np.maximum(drawn, np.clip(diameter / 2 + 0.5 - distance, 0, 1))
    return drawn


def inked(paper: np.ndarray, cover: np.ndarray, pen: float) -> np.ndarray:
    """Paper covered by a pen of brightness `pen`."""
    return paper * (1 - cover) + pen * cover


# --- camera ----------------------------------------------------------------------------------------------------------


def rgba(picture: np.ndarray, tint: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """Brightness → opaque uint8 (H, W, 4)."""
    canvas = np.full((*picture.shape, 4), 255, np.uint8)
    canvas[:, :, :3] = np.clip(picture[:, :, None] * np.array(tint) + 0.5, 0, 255).astype(np.uint8)
    return canvas


def photographed(
    canvas: np.ndarray, rng: np.random.Generator, blur: float = 0.0, noise: float = 0.0, quality: int | None = None
) -> np.ndarray:
    """Blur (standard deviation in pixels), add noise (standard deviation in levels), and compress as JPEG."""
    image = Image.fromarray(canvas[:, :, :3])
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    pixels = np.asarray(image, np.float64)
    if noise:
        pixels = pixels + noise * rng.standard_normal(pixels.shape)
    image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    if quality is not None:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        image = Image.open(file)
    return np.array(image.convert("RGBA"))
