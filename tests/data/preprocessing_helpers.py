"""Strokes drawn on canvases, and measurements of the resulting digits."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from bnmodel import Sketch

sketch = Sketch()

Points = list[tuple[float, float]]
STROKES: dict[str, Points] = {  # (x, y) in 0 … 1
    "2": [(0.3, 0.3), (0.5, 0.15), (0.7, 0.3), (0.3, 0.8), (0.75, 0.8)],
    "5": [(0.7, 0.2), (0.35, 0.2), (0.33, 0.45), (0.6, 0.45), (0.7, 0.6), (0.6, 0.8), (0.3, 0.8)],
    "7": [(0.25, 0.2), (0.75, 0.2), (0.4, 0.85)],
}
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def drawn(points: Points, size: int, at: tuple[int, int] = (0, 0), canvas: tuple[int, int] | None = None) -> np.ndarray:
    """An antialiased stroke, 1 / 13 of `size` wide → uint8 (H, W), 255 where there is ink. `canvas` is (W, H)."""
    canvas = canvas or (size, size)
    fine, width = 4, max(1, round(4 * size / 13))
    image = Image.new("L", (canvas[0] * fine, canvas[1] * fine))
    draw = ImageDraw.Draw(image)
    corners = [((x * size + at[0]) * fine, (y * size + at[1]) * fine) for x, y in points]
    draw.line(corners, fill=255, width=width, joint="curve")
    for x, y in corners:
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.array(image.resize(canvas, Image.Resampling.BOX))


def row(names: str, gap: int = 20) -> np.ndarray:
    """The strokes of these digits beside each other, uint8 (H, W)."""
    pieces = []
    for name in names:
        ink = drawn(STROKES[name], 110)
        columns = np.flatnonzero(ink.max(0))
        pieces.append(np.pad(ink[:, columns[0] : columns[-1] + 1], ((0, 0), (0, gap))))
    return np.pad(np.concatenate(pieces, axis=1), 30)


def painted(ink: np.ndarray, pen: tuple[int, ...] = BLACK, paper: tuple[int, ...] = WHITE) -> Tensor:
    """uint8 (H, W) of ink → uint8 (H, W, 4): `pen` on `paper`, RGB or RGBA."""
    pen, paper = (*pen, 255)[:4], (*paper, 255)[:4]
    share = ink[:, :, None] / 255
    return torch.from_numpy((share * np.array(pen) + (1 - share) * np.array(paper)).round().astype(np.uint8))


def on_transparent(ink: np.ndarray, pen: tuple[int, int, int] = BLACK) -> Tensor:
    """Like a browser's canvas: `pen` everywhere, with the ink in the alpha channel."""
    colours = np.broadcast_to(np.array(pen, dtype=np.uint8), (*ink.shape, 3))
    return torch.from_numpy(np.concatenate([colours, ink[:, :, None]], axis=2))


def opaque(grey: np.ndarray) -> Tensor:
    """Brightness (H, W), 0 … 255 → uint8 (H, W, 4)."""
    grey = grey.round().clip(0, 255).astype(np.uint8)
    return torch.from_numpy(np.dstack([grey, grey, grey, np.full_like(grey, 255)]))


def distance(digit: Tensor, expected: Tensor) -> float:
    """Mean absolute difference of two digits, one of which may be moved by a pixel."""
    moved = [expected.roll((down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return min(float((digit - other).abs().mean()) for other in moved)


def mass_centre(digit: Tensor) -> tuple[float, float]:
    """(row, column) in pixels, 0 in the middle of the first pixel."""
    index = torch.arange(digit.size(0), dtype=digit.dtype)
    return tuple(float((digit.sum(axis) * index).sum() / digit.sum()) for axis in (1, 0))


def box_of(mask: Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left, right; the ends exclusive."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
