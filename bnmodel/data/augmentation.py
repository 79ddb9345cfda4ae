"""Augmentation of digits, on whole batches of tensors.

It varies slant, stretch and bend (affine and elastic warp, Simard et al. 2003), the height of the middle, the width of
the pen, blur and gaps, and adds what is rare in MNIST: crossed sevens, and ones with a foot or a flag. Unlike
torchvision's transforms, which draw one random value per batch, every digit gets its own, from a given generator.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SIZE = 28
STRENGTHS = (0.0, 1.3)  # range of the factor for a digit's whole warp: some digits hardly change
ROTATION = 9.0  # degrees, standard deviation
SHEAR = 0.15  # standard deviation
STRETCH = 0.12  # standard deviation of the logarithm of either axis' factor
SHIFT = 1.0  # pixels, standard deviation
BEND = 0.9  # pixels, standard deviation of the elastic displacement at the control points
CONTROL_POINTS = 5  # of the elastic displacement, per axis
HEAD = 0.22  # largest vertical displacement of the middle, in half heights
SEVENS_CROSSED = 0.35
ONES_WITH_FOOT = 0.3
ONES_WITH_FLAG = 0.3
PENS_CHANGED = 0.6
EDGES_CHANGED = 0.5
GAPS = 0.15


def augment(images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Augment images (N, 1, 28, 28) in [0, 1] with labels (N,); same shape and range."""
    images = european(images, labels, generator)
    images = warp(images, generator)
    images = thickness(images, generator)
    images = gaps(images, generator)
    return tone(images, generator)


def warp(images: Tensor, generator: Generator) -> Tensor:
    """Rotate, shear, stretch, shift and bend each digit; move its middle up or down."""
    count = len(images)
    normal, uniform = random_like(images, generator)
    strength = STRENGTHS[0] + (STRENGTHS[1] - STRENGTHS[0]) * uniform(count)
    angle = strength * normal(count) * math.radians(ROTATION)
    cos, sin = angle.cos(), angle.sin()
    shear = strength * normal(count) * SHEAR
    stretch_x, stretch_y = (strength * normal(2, count) * STRETCH).exp()
    shift_x, shift_y = strength * normal(2, count) * (SHIFT * 2 / SIZE)
    # maps a point of the result to its source, in half sizes
    affine = torch.stack(
        (
            torch.stack((cos * stretch_x, (shear * cos - sin) * stretch_x, shift_x), 1),
            torch.stack((sin * stretch_y, (shear * sin + cos) * stretch_y, shift_y), 1),
        ),
        dim=1,
    )  # (N, 2, 3)
    grid = F.affine_grid(affine, [count, 1, SIZE, SIZE], align_corners=False)  # (N, 28, 28, 2)
    smooth = _bicubic(CONTROL_POINTS).to(images.device)  # (28, 5)
    bend = smooth @ (normal(count, 2, CONTROL_POINTS, CONTROL_POINTS) * (BEND * 2 / SIZE)) @ smooth.t()
    head = (uniform(count, 1, 1) * 2 - 1) * HEAD * (1 - (grid[..., 1] / 0.75) ** 2).clamp(min=0)
    moved = bend.permute(0, 2, 3, 1) + torch.stack((torch.zeros_like(head), head), dim=3)
    grid = grid + strength.view(-1, 1, 1, 1) * moved
    return F.grid_sample(images, grid, align_corners=False)


def thickness(images: Tensor, generator: Generator) -> Tensor:
    """Thicken the strokes of some digits by up to a pixel on either side, and thin those of others."""
    _, uniform = random_like(images, generator)
    amount = uniform(len(images), 1, 1, 1) * 1.6 - 0.7  # −0.7, thin … 0.9, thick
    amount = amount * (uniform(len(images), 1, 1, 1) < PENS_CHANGED)
    thick = F.max_pool2d(images, 3, stride=1, padding=1)
    thin = -F.max_pool2d(-images, 3, stride=1, padding=1)
    return torch.where(amount > 0, images.lerp(thick, amount.clamp(min=0)), images.lerp(thin, (-amount).clamp(min=0)))


def gaps(images: Tensor, generator: Generator) -> Tensor:
    """Cut a gap of one or two pixels through the ink of some digits."""
    count = len(images)
    normal, uniform = random_like(images, generator)
    centre = 14 + 4.5 * normal(count, 2)  # x, y in pixels
    angle = uniform(count) * math.pi
    along = torch.stack((angle.cos(), angle.sin()), 1) * (1 + 3 * uniform(count, 1))
    cut = segments(centre - along, centre + along, 0.4 + 0.5 * uniform(count))
    return images * (1 - cut.unsqueeze(1) * (uniform(count, 1, 1, 1) < GAPS))


def tone(images: Tensor, generator: Generator) -> Tensor:
    """Blur or sharpen edges. The brightest pixel becomes full ink, as in preprocessing."""
    count = len(images)
    _, uniform = random_like(images, generator)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1)), 3, stride=1)
    images = images.lerp(blurred, 0.6 * (2 * uniform(count, 1, 1, 1) - 1).clamp(min=0))
    images = images / images.amax(dim=(2, 3), keepdim=True).clamp(min=0.3)
    hardness = (uniform(count, 1, 1, 1) * 1.4 - 0.4).exp()  # slope of the edges: 0.67 … 2.7
    changed = ((images - 0.4) * hardness + 0.4).clamp(0, 1) * (images > 0.02)
    return torch.where(uniform(count, 1, 1, 1) < EDGES_CHANGED, changed, images)


def european(images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Cross some sevens; give some ones a foot, and some a flag at the top."""
    count = len(images)
    _, uniform = random_like(images, generator)
    ink = images[:, 0]  # (N, 28, 28)
    position = torch.arange(SIZE, device=ink.device) + 0.5
    rows = ink.amax(dim=2) > 0.3  # (N, 28)
    top = torch.where(rows, position, SIZE).amin(dim=1)  # (N,)
    bottom = torch.where(rows, position, 0).amax(dim=1)

    def stem(y: Tensor) -> Tensor:
        """The mean x of the ink at height y, (N,)."""
        row = ink[torch.arange(count, device=ink.device), y.long().clamp(0, SIZE - 1)]  # (N, 28)
        return (row * position).sum(1) / row.sum(1).clamp(min=1e-3)

    def line(start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor], chosen: Tensor) -> Tensor:
        width = 0.6 + 0.7 * uniform(count)
        return segments(torch.stack(start, 1), torch.stack(end, 1), width) * chosen.view(-1, 1, 1)

    middle = top + (bottom - top) * (0.45 + 0.2 * uniform(count))
    tilt = 4 * uniform(count) - 2.5
    left, right = stem(middle) - 2 - 4 * uniform(count), stem(middle) + 2 + 3.5 * uniform(count)
    crossed = (labels == 7) & (uniform(count) < SEVENS_CROSSED)
    strokes = line((left, middle - tilt / 2), (right, middle + tilt / 2), crossed)
    base = stem(bottom - 1)
    foot = (labels == 1) & (uniform(count) < ONES_WITH_FOOT)
    lean = 2 * uniform(count) - 1
    start, end = (base - 2 - 4 * uniform(count), bottom), (base + 2 + 4 * uniform(count), bottom + lean)
    strokes = torch.maximum(strokes, line(start, end, foot))
    head, flag = stem(top + 1), (labels == 1) & (uniform(count) < ONES_WITH_FLAG)
    end = (head - 2 - 4 * uniform(count), top + 2 + 5 * uniform(count))
    strokes = torch.maximum(strokes, line((head, top), end, flag))
    return torch.maximum(images, strokes.unsqueeze(1))


def segments(start: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """One antialiased line per image, from `start` to `end` (N, 2; x, y in pixels), `width` (N,) to either side.

    Returns:
        (N, 28, 28) in [0, 1].
    """
    position = torch.arange(SIZE, device=start.device) + 0.5
    x, y = position.view(1, 1, -1), position.view(1, -1, 1)
    (x0, y0), (x1, y1) = (p.unbind(1) for p in (start, end))
    x0, y0, x1, y1 = (v.view(-1, 1, 1) for v in (x0, y0, x1, y1))
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy).clamp(min=1e-6)).clamp(0, 1)
    distance = ((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2).sqrt()
    return (width.view(-1, 1, 1) + 0.5 - distance).clamp(0, 1)


@lru_cache
def _bicubic(points: int) -> Tensor:
    """Bicubic interpolation of `points` values at every pixel, (28, points)."""
    impulses = torch.eye(points).unsqueeze(0).unsqueeze(3)  # (1, points, points, 1)
    return F.interpolate(impulses, size=(SIZE, 1), mode="bicubic", align_corners=True)[0, :, :, 0].t()


def random_like(like: Tensor, generator: Generator) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Functions that draw standard normal and uniform numbers of a shape, on the device of `like`."""
    return (
        lambda *shape: torch.randn(*shape, generator=generator, device=like.device),
        lambda *shape: torch.rand(*shape, generator=generator, device=like.device),
    )
