"""Random photos of a digit on a note, label or plate that lies on a desk, on wood or on bricks."""

import numpy as np

from benchmarks import paper as p
from benchmarks.rasteriser import Drawing
from benchmarks.strokes import Strokes

Rng = np.random.Generator


def on_note(strokes: Strokes, rng: Rng, lengths: tuple[float, float] = (0.5, 0.9), off: float = 0.2) -> np.ndarray:
    """A coloured rectangle or disc, slightly rotated.

    `lengths`: range of its length, as a share of the picture's shorter side; `off`: greatest distance from the middle,
    as a share of the room beside it.
    """
    height, width = (int(side) for side in rng.integers(240, 640, 2))
    size, side = (height, width), min(height, width)
    behind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](size, rng)
    while True:
        colour = rng.uniform(120, 255, 3)
        if abs(colour - behind.mean((0, 1))).max() > 50:
            break
    length, turned = rng.uniform(*lengths) * side, rng.uniform(-10, 10)
    y, x = np.mgrid[:height, :width] + 0.5
    centre = np.array([width, height]) / 2 + rng.uniform(-off, off, 2) * (np.array([width, height]) - length)
    cos, sin = np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned))
    along, across = abs(np.array([[cos, sin], [-sin, cos]]) @ np.stack((x - centre[0], y - centre[1])).reshape(2, -1))
    disc = rng.random() < 0.25
    beyond = np.hypot(along, across) if disc else np.maximum(along, across * rng.uniform(1, 1.25))
    cover = np.clip(length / 2 + 0.5 - beyond, 0, 1).reshape(*size, 1)
    picture = behind * (1 - cover) + (colour + p.grain(size, rng.uniform(0, 3), rng)[:, :, None]) * cover
    share = rng.uniform(0.45, 0.6) * length / side * (0.85 if disc else 1)
    drawing = Drawing(
        width=width,
        height=height,
        size=share,
        brush=max(share * rng.uniform(0.06, 0.13), 2.5 / side),
        centre=(float(centre[0]) / width, float(centre[1]) / height),
        rotation=turned + rng.uniform(-8, 8),
    )
    picture = p.inked(picture, p.coverage(strokes, drawing, rng)[:, :, None], rng.uniform(0, 60))
    light = p.slope(size, rng.uniform(0, 0.12), rng.uniform(0, 7))[:, :, None]
    canvas = np.full((*size, 4), 255, np.uint8)
    canvas[:, :, :3] = np.clip(picture * light, 0, 255)
    return p.photographed(canvas, rng, rng.uniform(0.3, 1.2), rng.uniform(0, 3), int(rng.integers(60, 95)))


def on_small_note(strokes: Strokes, rng: Rng) -> np.ndarray:
    return on_note(strokes, rng, (0.25, 0.5), 0.4)


# --- backgrounds: float64 (H, W, 3) in 0 … 255 ------------------------------------------------------------------------


def desk(size: p.Size, rng: Rng) -> np.ndarray:
    return rng.uniform(40, 220, 3) + p.grain(size, rng.uniform(0, 4), rng)[:, :, None]


def wood(size: p.Size, rng: Rng) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    rings = rng.uniform(8, 25) * np.sin(rng.uniform(0.04, 0.24) * across + 2 * np.sin(0.01 * along))
    brown = np.array([150, 105, 65]) * rng.uniform(0.5, 1.3)
    return brown + (rings + p.grain(size, 4, rng))[:, :, None] * np.array([1, 0.8, 0.6])


def bricks(size: p.Size, rng: Rng) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    high = rng.uniform(0.08, 0.16) * size[0]
    wide, joint = high * rng.uniform(2, 3), 0.1 * high
    row = (y // high).astype(int)
    x = x + row % 2 * wide / 2
    shade = rng.uniform(-25, 25, (40, 400))[row, (x // wide).astype(int)][:, :, None]
    brick = np.array([150, 75, 60]) * rng.uniform(0.7, 1.2) + shade
    mortar = np.array([200, 195, 185]) * rng.uniform(0.7, 1.1)
    wall = np.where((y % high < joint)[:, :, None] | (x % wide < joint)[:, :, None], mortar, brick)
    return wall + p.grain(size, 6, rng)[:, :, None]


BACKGROUNDS = (desk, wood, bricks)
