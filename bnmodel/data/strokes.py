"""Shapes drawn with a pen: control points → straight lines → 28×28 images, in batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

SIZE = 28  # pixels per side
BOX = (17.0, 20.0)  # range of the longer side of a drawn shape, in pixels
ASPECT = 0.15  # standard deviation of the logarithm of the factor for its width
SLIP = 0.3  # standard deviation of the displacement of control points, in grid units
PIECES = 4  # straight lines per segment of a curve


@dataclass(frozen=True)
class Shapes:
    """Shapes as control points and lines whose ends are weighted sums of these, padded to equal numbers of both."""

    points: Tensor  # (shapes, points, 2), x and y in grid units
    start: Tensor  # (shapes, lines, points)
    end: Tensor  # (shapes, lines, points)

    def lines(self, which: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Start and end points of the lines of `which` (N,) shapes, each (N, lines, 2), x and y in pixels.

        Control points are displaced at random. The bounding box is that of a digit, the centre of mass at (14, 14).
        """
        points, start, end = (table.to(which.device)[which] for table in (self.points, self.start, self.end))
        normal, uniform = random_like(points, generator)
        points = points + SLIP * normal(*points.shape)
        points = points * torch.stack(((ASPECT * normal(len(which), 1)).exp(), torch.ones_like(points[:, :1, 0])), 2)
        start, end = start @ points, end @ points
        both = torch.cat((start, end), dim=1)
        side = (both.amax(dim=1) - both.amin(dim=1)).amax(dim=1)  # (N,)
        scale = (BOX[0] + (BOX[1] - BOX[0]) * uniform(len(which))) / side.clamp(min=1e-3)
        start, end = start * scale.view(-1, 1, 1), end * scale.view(-1, 1, 1)
        length = (end - start).norm(dim=2, keepdim=True)
        centre = ((start + end) / 2 * length).sum(1, keepdim=True) / length.sum(1, keepdim=True).clamp(min=1e-3)
        return start + (SIZE / 2 - centre), end + (SIZE / 2 - centre)

    def draw(self, which: Tensor, width: Tensor, generator: Generator) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] of `which` (N,) shapes; `width` (N,): half the pen's width in pixels."""
        start, end = self.lines(which, generator)
        lines = segments(start.flatten(0, 1), end.flatten(0, 1), width.repeat_interleave(start.shape[1]))
        return lines.view(*start.shape[:2], SIZE, SIZE).amax(dim=1, keepdim=True)


def parse(shapes: Sequence[str]) -> Shapes:
    """Parse shapes: strokes separated by commas, each a list of points xy, y downwards.

    With a leading ~ all strokes are curves (Catmull & Rom 1974) through their points; a point given twice is a corner.
    """
    parsed = [_lines(shape) for shape in shapes]
    most_points, most_lines = (max(len(shape[part]) for shape in parsed) for part in (0, 1))
    points = torch.zeros(len(shapes), most_points, 2)
    start, end = (torch.zeros(len(shapes), most_lines, most_points) for _ in range(2))
    for number, (control, lines) in enumerate(parsed):
        points[number, : len(control)] = torch.tensor(control)
        padded = lines + [(lines[-1][1],) * 2] * (most_lines - len(lines))  # with lines of length 0
        for row, (first, last) in enumerate(padded):
            start[number, row, : len(control)], end[number, row, : len(control)] = first, last
    return Shapes(points, start, end)


def _lines(shape: str) -> tuple[list[tuple[float, float]], list[tuple[Tensor, Tensor]]]:
    """The control points of a shape, and per line the weights of all control points for its start and its end."""
    strokes = [stroke.split() for stroke in shape.removeprefix("~").split(",")]
    control: list[tuple[float, float]] = []
    runs: list[list[int]] = []  # indices of control points between corners
    for stroke in strokes:
        runs.append([])
        for number, point in enumerate(stroke):
            if number and stroke[number - 1] == point:
                runs.append([])  # a corner starts a new run at the same point
            else:
                control.append((float(point[0]), float(point[1])))
            runs[-1].append(len(control) - 1)
    weights = torch.eye(len(control))
    lines = []
    for run in runs:
        way = weights[run]  # (points, control points)
        lines += list(pairwise(_curve(way) if shape.startswith("~") else way))
    return control, lines


def _curve(points: Tensor) -> Tensor:
    """A Catmull-Rom spline through `points` (N, D), PIECES points per segment: (PIECES · (N − 1) + 1, D)."""
    padded = torch.cat((points[:1], points, points[-1:]))
    t = (torch.arange(PIECES) / PIECES).view(1, -1, 1)
    before, first, last, after = (padded[i : len(points) - 1 + i].unsqueeze(1) for i in range(4))
    linear, square, cube = last - before, 2 * before - 5 * first + 4 * last - after, 3 * (first - last) + after - before
    curve = first + (linear * t + square * t**2 + cube * t**3) / 2  # (N − 1, PIECES, D)
    return torch.cat((curve.flatten(0, 1), points[-1:]))


def segments(start: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """One antialiased line per image, from `start` to `end`, (N, 2) each, x and y in pixels → (N, 28, 28) in [0, 1].

    `width` (N,): half the width of the line, in pixels.
    """
    position = torch.arange(SIZE, device=start.device) + 0.5
    x, y = position.view(1, 1, -1), position.view(1, -1, 1)
    (x0, y0), (x1, y1) = (p.unbind(1) for p in (start, end))
    x0, y0, x1, y1 = (v.view(-1, 1, 1) for v in (x0, y0, x1, y1))
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy).clamp(min=1e-6)).clamp(0, 1)
    distance = ((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2).sqrt()
    return (width.view(-1, 1, 1) + 0.5 - distance).clamp(0, 1)


def random_like(like: Tensor, generator: Generator) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Two functions of a shape: standard normal and uniform random numbers on the device of `like`."""
    return (
        lambda *shape: torch.randn(*shape, generator=generator, device=like.device),
        lambda *shape: torch.rand(*shape, generator=generator, device=like.device),
    )
