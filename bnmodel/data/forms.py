"""Printed forms: the cells, boxes, circles and underlines around digits, which do not belong to a digit.

The lines of a form enclose the digits, or are longer than a digit is wide, unlike the straight strokes of a 1, a 7 or a
seven-segment display. Masks are float tensors of 0 and 1, (side, side), of cells of a few working pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.components import Components, box_around, components, surrounds
from bnmodel.data.ink import enlarged
from bnmodel.data.ruled_lines import around, thickened


def without_forms(contrast: Tensor, columns: Tensor, side: int) -> Tensor:
    """Contrast (SIDE, SIDE) → the same without forms.

    Lines across the picture are left to `find_content`: three or more, which are ruled paper, and at 80 cells all.

    Args:
        contrast: of the ink against the paper.
        columns: 1 on the canvas, 0 outside, (SIDE,).
        side: number of cells per side: 80, or 160 for several digits.
    """
    size = 320 // side
    cells = contrast.view(side, size, 320).amax(dim=1).view(side, side, size).amax(dim=2)
    mask = ((cells > 0.15 * cells.max()) & (cells > 0)).to(cells.dtype)
    index = torch.arange(side, device=mask.device, dtype=mask.dtype)
    apart = index - index[:, None]  # once, since exported files contain it
    found = components(mask, turns=2)  # forms turn rarely
    tall = ((found.bottom - found.top) * mask).max()  # of a digit or of a cell
    thick = (0.12 * tall + 3).floor()
    flat = mask * (1 - runs(mask.t(), apart, thick).t())  # without solid areas
    steep = mask * (1 - runs(mask, apart, thick))
    solid = mask * (1 - torch.maximum(flat, steep))
    height, width = found.bottom - found.top, found.right - found.left
    printed = mask * ((height >= 0.8 * tall) | (torch.minimum(height, width) <= thick))  # frames and lines, not digits
    walls = _walls(mask, printed, flat, steep, apart, tall)
    lines = _lines(mask, flat, apart, 1.5 * tall, thick)
    lines = lines * (1 - _is_pair(lines, mask, apart, tall))
    if side == 80:
        across = thickened(lines).sum(dim=1) >= 0.9 * columns.sum() / size
        lines = lines * (1 - across.to(mask.dtype)[:, None])
    rings = _rings_and_combs(mask, found, apart, thick, solid)
    form = torch.maximum(walls, torch.maximum(lines, rings) * (1 - walls.max()))
    near = around(form[None])[0]
    rest = mask * (1 - near)
    digits = (rest.sum() >= 0.5 * tall).to(mask.dtype)
    form = torch.maximum(form, mask * near * (1 - around(rest[None])[0]))  # slivers of lines that are slightly turned
    form = form * digits * (1 - _is_ruled(runs(thickened(mask), apart, 0.66 * tall), columns))
    return contrast * (1 - enlarged(form))


def runs(mask: Tensor, apart: Tensor, length: Tensor, share: float = 0.95) -> Tensor:
    """1 in runs along the rows of at least `length` () cells, more than a `share` of them filled, 0 elsewhere.

    `apart`: distance of cells, (side, side).
    """
    window = _next(apart, length.floor())
    full = (mask @ window.t() > share * length.floor()).to(mask.dtype)  # runs start here
    return (full @ window > 0).to(mask.dtype)


def _next(apart: Tensor, length: Tensor) -> Tensor:
    """(i, j): 1 if cell j of a line is cell i or one of the `length` - 1 cells after it. `apart`: j - i."""
    return ((apart >= 0) & (apart < length)).to(apart.dtype)


def _slanted(mask: Tensor, tall: Tensor) -> Tensor:
    """Maximum over as many rows as a slightly turned line of `tall` cells covers."""
    rows = thickened(mask)
    return torch.maximum(rows, thickened(rows) * (tall > 60)) if mask.size(0) > 80 else rows


def _lines(mask: Tensor, flat: Tensor, apart: Tensor, length: Tensor, thick: Tensor) -> Tensor:
    """Lines along the rows, without the strokes that cross them."""
    gap, rows = _next(apart, 0.15 * length), _next(apart, thick + 1)
    found = flat * runs(thickened(flat), apart, length, 0.85)
    band = (found @ (gap + gap.t()) > 0).to(mask.dtype)
    rest = mask * (1 - band)
    return mask * band * (1 - ((rows @ rest > 0) & (rows.t() @ rest > 0)).to(mask.dtype))


def _walls(mask: Tensor, printed: Tensor, flat: Tensor, steep: Tensor, apart: Tensor, tall: Tensor) -> Tensor:
    """The walls of boxes or of a row of cells, if most of the other ink has a wall on all four sides.

    `printed`: ink that may be a wall.
    """
    across = printed * runs(_slanted(mask, tall), apart, 0.7 * tall)
    down = printed * runs(_slanted(mask.t(), tall), apart, 0.8 * tall).t()
    lying, upright = across * flat, down * steep
    # a wall that is slightly turned leaves the three rows
    lying = _continued(lying, printed * flat, apart, 0.3 * tall)
    upright = _continued(upright.t(), (printed * steep).t(), apart, 0.3 * tall).t()
    thin = torch.maximum(lying, upright)
    walls = torch.maximum(thin, around(thin[None])[0] * torch.maximum(across, down))  # with their crossings
    rest = mask * (1 - around(walls[None])[0])
    columns = _next(apart, 1.6 * tall)
    inside = rest * _within(lying, apart, tall) * (upright @ columns > 0) * (upright @ columns.t() > 0)
    return walls * ((inside.sum() >= 0.7 * rest.sum()) & (inside.sum() >= 0.5 * tall))


def _continued(lines: Tensor, thin: Tensor, apart: Tensor, length: Tensor) -> Tensor:
    """`lines` along the rows and their continuation in the next rows: `thin` ink in runs of at least `length` ()."""
    near = _next(apart, length)
    beside = (around(lines[None])[0] @ (near + near.t()) > 0).to(lines.dtype)
    return torch.maximum(lines, thin * runs(thickened(thin), apart, length) * beside)


def _is_pair(lines: Tensor, mask: Tensor, apart: Tensor, tall: Tensor) -> Tensor:
    """Whether most ink has a line above and a line below, as in an ellipse: 1 or 0, ()."""
    rest = mask * (1 - around(lines[None])[0])
    return ((rest * _within(lines, apart, tall)).sum() > 0.5 * rest.sum()).to(mask.dtype)


def _within(lines: Tensor, apart: Tensor, tall: Tensor) -> Tensor:
    """Where there is a line above and a line below, no farther than a cell is high."""
    rows = _next(apart, 1.1 * tall)
    return (rows @ lines > 0) & (rows.t() @ lines > 0)


def _rings_and_combs(mask: Tensor, found: Components, apart: Tensor, thick: Tensor, solid: Tensor) -> Tensor:
    """The components that are forms as a whole.

    A ring is the largest component, if it surrounds the others and has no ink between them. A digit that touches it
    from inside stays, unless the ring is the `solid` background of a note. Combs and underlines are wider than a digit,
    and flat.
    """
    height, width = (found.bottom - found.top) * mask, (found.right - found.left) * mask
    comb = (width >= 1.4 * height.max()) & (height < 0.75 * height.max())
    size = torch.maximum(height, width)
    bounds = torch.stack((found.left, found.top, found.right, found.bottom), dim=2).view(-1, 4)
    left, top, right, bottom = F.embedding(size.flatten().argmax(), bounds).unbind()
    same = (found.left == left) & (found.top == top) & (found.right == right) & (found.bottom == bottom)
    ring = mask * same
    inside = (found.left > left) & (found.top > top) & (found.right < right) & (found.bottom < bottom)
    content = mask * inside
    # the holes of an outlined 6 or 8 are smaller than 0.4 of its height, and it is not wide
    wide = right - left > 1.2 * (bottom - top)
    large = (size * content).max() >= (0.4 - 0.2 * wide.to(mask.dtype)) * (bottom - top)
    empty = (ring * box_around(content)).sum() <= 0.03 * ring.sum()
    before = (apart >= 0.5 * thick).to(mask.dtype)
    beside, above = (ring @ before > 0) & (ring @ before.t() > 0), (before @ ring > 0) & (before.t() @ ring > 0)
    drawn = (ring * solid).sum() <= 0.1 * ring.sum()
    ring = ring * torch.logical_not(beside & above & drawn)  # except ink with the ring on all four sides
    return torch.maximum(ring * (large & empty & surrounds(ring, content)), comb.to(mask.dtype))


def _is_ruled(lines: Tensor, columns: Tensor) -> Tensor:
    """Whether at least three `lines` begin at the left side and at least three end at the right side: 1 or 0, ()."""
    columns = columns.view(lines.size(0), -1).amax(dim=1)
    last = columns - F.pad(columns, (0, 3))[3:] * columns
    ends = F.pad(torch.stack((lines[:, :3].amax(dim=1), (lines * last).amax(dim=1))), (1, 0))
    return ((ends[:, 1:] - ends[:, :-1]).clamp(min=0).sum(dim=1).min() >= 3).to(lines.dtype)
