"""Augmentation of digits, in batches.

Varies slant, stretch and bend (affine and elastic warp, Simard et al. 2003), the height of the middle, pen width, blur
and gaps. Adds shapes that are rare in MNIST: crossed sevens, slashed zeros, ones with a foot or a flag, digits in other
styles and of seven-segment displays. Unlike in torchvision's transforms, which draw one random value per batch, each
digit has its own, from a given generator.
"""

import math
from functools import lru_cache, partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bnmodel.data.strokes import SIZE, parse, random_like, segments

STRENGTHS = (0.0, 1.3)  # range of the factor for a digit's whole warp: some digits hardly change
ROTATION = 9.0  # degrees, standard deviation
SHEAR = 0.15  # standard deviation
STRETCH = 0.12  # standard deviation of the logarithm of either axis' factor
SHIFT = 1.0  # pixels, standard deviation
BEND = 0.9  # pixels, standard deviation of the elastic displacement at the control points
CONTROL_POINTS = 5  # of the elastic displacement, per axis
SHAKY = 0.15  # share of the digits with a second, finer displacement, as by a shaky hand
SHAKE = 0.5  # pixels, standard deviation of the finer displacement at its control points
SHAKE_POINTS = 10  # of the finer displacement, per axis
HEAD = 0.22  # largest vertical displacement of the middle, in half heights
# shares of the digits, or of the digits of a class
SEVENS_CROSSED = 0.35
SEVENS_LOOPED = 0.5  # of the crossed ones: drawn in one stroke that continues from the foot to the bar
ONES_WITH_FOOT = 0.3
ONES_WITH_FLAG = 0.4
ZEROS_SLASHED = 0.15
PENS_CHANGED = 0.6
EDGES_CHANGED = 0.5
GAPS = 0.15
REDRAWN = 7  # every seventh digit is replaced by one of STYLES or DISPLAYED
# strokes as in `strokes.parse`, on a grid 6 wide and 8 high
SEGMENTS = {  # name of a segment of a seven-segment display → its line, without and with gaps to the others
    "a": ("00 40", "10 30"), "b": ("40 44", "41 43"), "c": ("44 48", "45 47"), "d": ("08 48", "18 38"),
    "e": ("04 08", "05 07"), "f": ("00 04", "01 03"), "g": ("04 44", "14 34"),
}  # fmt: skip
DISPLAYED = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
STYLES = {
    1: ("05 40 48", "04 30 38, 08 68", "12 30 38, 08 68", "06 50 58"),  # a long flag; a flag and a wide foot
    3: ("~01 20 51 43 54 56 28 07", "~00 30 52 54 57 38 07"),  # without a notch
    4: (  # no bar crosses; curled ends
        "40 04 54 38",
        "30 05 55 48",
        "20 04 44 28",
        "~30 12 05 05 55, 40 38",  # closed
        "40 05 65, 40 38",
        "~30 14 04 04 54 54 48",
        "~21 10 03 03 14 64, 50 58",
        "~10 04 04 64, 42 46 38 17",
    ),
    6: ("~52 61 40 11 04 06 28 57 55 34 05", "~50 20 03 06 28 57 55 34 15 26 36"),  # a curled end
    7: (  # one stroke, with its bar
        "~00 50 50 28 06 05 54",
        "~00 60 60 28 05 04 54",
        "~01 00 00 50 50 28 16 05 54",
        "~01 30 51 28 18 06 25 54",
    ),
    9: ("~51 30 11 02 14 34, 51 58", "~53 40 21 22 43 53 48", "~51 40 31 42 52 52 48"),  # an open head; tiny ones
}
DRAWN = [  # all shapes of each digit
    [*STYLES.get(digit, ()), *(", ".join(SEGMENTS[name][space] for name in names) for space in (0, 1))]
    for digit, names in enumerate(DISPLAYED)
]
_DRAWN = parse([shape for shapes in DRAWN for shape in shapes])
_COUNTS = torch.tensor([len(shapes) for shapes in DRAWN])
_FIRST = _COUNTS.cumsum(0) - _COUNTS


def augment(images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Augment images (N, 1, 28, 28) in [0, 1] with labels (N,); same shape and range."""
    images = european(images, labels, generator)
    images[::REDRAWN] = redraw(images[::REDRAWN], labels[::REDRAWN], generator)
    images = warp(images, generator, centres(images))
    images = thickness(images, generator)
    images = gaps(images, generator)
    return tone(images, generator)


def redraw(images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Draw digits of `labels` (N,) in one of STYLES or as on a display; shaped like `images`."""
    _, uniform = random_like(images, generator)
    counts, first = _COUNTS.to(images.device)[labels], _FIRST.to(images.device)[labels]
    which = (first + (uniform(len(images)) * counts).long()).clamp(max=len(_DRAWN.points) - 1)
    return _DRAWN.draw(which, 0.6 + uniform(len(images)), generator)


def centres(images: Tensor) -> Tensor:
    """The centres of mass of images (N, 1, 28, 28): (N, 2), x and y in pixels."""
    position = torch.arange(SIZE, device=images.device) + 0.5
    mass = images.sum(dim=(1, 2, 3)).clamp(min=1e-3)
    return (
        torch.stack(((images.sum((1, 2)) * position).sum(1), (images.sum((1, 3)) * position).sum(1)), 1) / mass[:, None]
    )


def warp(images: Tensor, generator: Generator, middle: Tensor | None = None) -> Tensor:
    """Rotate, shear, stretch, shift and bend each digit, move its middle up or down, and make some shaky.

    `middle`: x and y in pixels (N, 2) of the points to move to the middle of the image; None: no such shift.
    """
    count = len(images)
    normal, uniform = random_like(images, generator)
    strength = STRENGTHS[0] + (STRENGTHS[1] - STRENGTHS[0]) * uniform(count)
    angle = strength * normal(count) * math.radians(ROTATION)
    cos, sin = angle.cos(), angle.sin()
    shear = strength * normal(count) * SHEAR
    stretch_x, stretch_y = (strength * normal(2, count) * STRETCH).exp()
    shift_x, shift_y = strength * normal(2, count) * (SHIFT * 2 / SIZE)
    if middle is not None:
        shift_x, shift_y = (shift + at * 2 / SIZE - 1 for shift, at in zip((shift_x, shift_y), middle.t(), strict=True))
    # maps a point of the result to its source, in units of half the image
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
    fine = _bicubic(SHAKE_POINTS).to(images.device)
    shaken = SHAKE * 2 / SIZE * (uniform(count, 1, 1, 1) < SHAKY)
    shake = fine @ (normal(count, 2, SHAKE_POINTS, SHAKE_POINTS) * shaken) @ fine.t()
    grid = grid + shake.permute(0, 2, 3, 1)
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
    """Blur or sharpen edges, and scale the brightest pixel to full ink, as in preprocessing."""
    count = len(images)
    _, uniform = random_like(images, generator)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1)), 3, stride=1)
    images = images.lerp(blurred, 0.6 * (2 * uniform(count, 1, 1, 1) - 1).clamp(min=0))
    images = images / images.amax(dim=(2, 3), keepdim=True).clamp(min=0.3)
    hardness = (uniform(count, 1, 1, 1) * 1.4 - 0.4).exp()  # slope of the edges: 0.67 … 2.7
    changed = ((images - 0.4) * hardness + 0.4).clamp(0, 1) * (images > 0.02)
    return torch.where(uniform(count, 1, 1, 1) < EDGES_CHANGED, changed, images)


def european(images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Add strokes: a bar to some sevens, a slash to some zeros, a foot or a flag to some ones.

    The stroke of a seven may continue from its foot in a loop to the bar.
    """
    pen = _Pen(images[:, 0], generator)
    added = (*pen.bars(labels == 7), *pen.foot_and_flag(labels == 1), pen.slash(labels == 0))
    return torch.maximum(images, torch.stack(added).amax(0).unsqueeze(1))


class _Pen:
    """Adds strokes to some digits, (N,), whose ink is (N, 28, 28)."""

    def __init__(self, ink: Tensor, generator: Generator) -> None:
        self.ink = ink
        self.uniform = partial(random_like(ink, generator)[1], len(ink))
        self.position = torch.arange(SIZE, device=ink.device) + 0.5
        rows = ink.amax(dim=2) > 0.3  # (N, 28)
        self.top = torch.where(rows, self.position, SIZE).amin(dim=1)  # (N,)
        self.bottom = torch.where(rows, self.position, 0).amax(dim=1)

    def stem(self, y: Tensor) -> Tensor:
        """The mean x of the ink at height y, (N,)."""
        row = self.ink[torch.arange(len(self.ink), device=y.device), y.long().clamp(0, SIZE - 1)]  # (N, 28)
        return (row * self.position).sum(1) / row.sum(1).clamp(min=1e-3)

    def line(self, start: tuple[Tensor, ...], end: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
        """A line from start to end, x and y, in the chosen digits."""
        width = 0.6 + 0.7 * self.uniform()
        return segments(torch.stack(start, 1), torch.stack(end, 1), width) * chosen.view(-1, 1, 1)

    def bars(self, sevens: Tensor) -> list[Tensor]:
        """A bar, and a loop to it from the foot: a quadratic Bézier curve."""
        uniform, bottom = self.uniform, self.bottom
        middle = self.top + (bottom - self.top) * (0.45 + 0.2 * uniform())
        tilt = 4 * uniform() - 2.5
        left, right = self.stem(middle) - 2 - 4 * uniform(), self.stem(middle) + 2 + 3.5 * uniform()
        crossed = sevens & (uniform() < SEVENS_CROSSED)
        bar = self.line((left, middle - tilt / 2), (right, middle + tilt / 2), crossed)
        base = self.stem(bottom - 1)
        looped = crossed & (uniform() < SEVENS_LOOPED)
        # the middle control point is mostly left of and below the straight line
        out, down = 6 * uniform() - 1, 3 * uniform() - 1
        control = (base + left) / 2 - out, (bottom + middle) / 2 + down
        curve = [torch.stack(at, 1) for at in ((base, bottom - 1), control, (left, middle - tilt / 2))]  # (N, 2) each
        points = [
            (1 - t) ** 2 * curve[0] + 2 * t * (1 - t) * curve[1] + t**2 * curve[2] for t in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        return [bar, *(self.line(a.unbind(1), b.unbind(1), looped) for a, b in pairwise(points))]

    def foot_and_flag(self, ones: Tensor) -> tuple[Tensor, Tensor]:
        uniform, top, bottom = self.uniform, self.top, self.bottom
        foot, base = ones & (uniform() < ONES_WITH_FOOT), self.stem(bottom - 1)
        lean = 2 * uniform() - 1
        left, right = base - 2 - 5 * uniform(), base + 2 + 5 * uniform()
        below = self.line((left, bottom), (right, bottom + lean), foot)
        head, flag = self.stem(top + 1), ones & (uniform() < ONES_WITH_FLAG)
        angle, length = 0.4 + 0.7 * uniform(), (bottom - top) * (0.15 + 0.5 * uniform())  # from the vertical
        tip = head - length * angle.sin(), top + length * angle.cos()
        return below, self.line((head, top), tip, flag)

    def slash(self, zeros: Tensor) -> Tensor:
        slashed = zeros & (self.uniform() < ZEROS_SLASHED)
        half_x, half_y = 3 + 4 * self.uniform(), 4 + 6 * self.uniform()
        return self.line((14 - half_x, 14 + half_y), (14 + half_x, 14 - half_y), slashed)


@lru_cache
def _bicubic(points: int) -> Tensor:
    """Weights of bicubic interpolation between `points` values at every pixel, (28, points)."""
    impulses = torch.eye(points).unsqueeze(0).unsqueeze(3)  # (1, points, points, 1)
    return F.interpolate(impulses, size=(SIZE, 1), mode="bicubic", align_corners=True)[0, :, :, 0].t()
