"""Printed forms: the cells, boxes, circles and underlines around digits, which do not belong to a digit.

The lines of a form enclose the digits, or are longer than a digit is wide, unlike the straight strokes of a 1, a 7 or a
seven-segment display. Masks are float tensors of 0 and 1, (side, side), of cells of a few working pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.components import Components, box_around, components, surrounds
from bnmodel.data.ruled_lines import around, distances, following, runs, thickened


def find_forms(cells: Tensor, columns: Tensor) -> Tensor:
    """Contrast of the ink against the paper in cells → mask of the forms, (side, side) each.

    `side` is 80, or 160 for several digits; `columns` is 1 on the canvas and 0 outside, (SIDE,). Lines across the
    picture are left to `find_content`: three or more, which are ruled paper, and at 80 cells all.
    """
    side = cells.size(0)
    mask = ((cells > 0.15 * cells.max()) & (cells > 0)).to(cells.dtype)
    after = distances(side).to(mask)
    found = components(mask, turns=2)  # forms turn rarely
    tall = ((found.bottom - found.top) * mask).max()  # of a digit or of a cell
    thick = (0.12 * tall + 3).floor()
    both = torch.stack((mask, mask.t()))  # lines along the rows are lying, or upright and transposed
    across, down = runs(both, after, thick).transpose(1, 2).unbind()
    thin = both * (1 - torch.stack((down, across)))  # without solid areas
    flat, steep = thin.unbind()
    solid = mask * (1 - torch.maximum(flat, steep.t()))
    height, width = found.bottom - found.top, found.right - found.left
    printed = mask * ((height >= 0.8 * tall) | (torch.minimum(height, width) <= thick))  # frames and lines, not digits
    walls = _walls(both, torch.stack((printed, printed.t())), thin, after, tall)
    lines = _lines(mask, flat, after, 1.5 * tall, thick)
    lines = lines * torch.logical_not(_is_pair(lines, mask, after, tall))
    if side == 80:
        short = thickened(lines[None])[0].sum(dim=1) < 0.9 * columns.sum() / 4
        lines = lines * short[:, None]
    rings = _rings_and_combs(mask, found, after, thick, solid)
    form = torch.maximum(walls, torch.maximum(lines, rings) * (1 - walls.max()))
    near = around(form[None])[0]
    rest = mask * (1 - near)
    digits = rest.sum() >= 0.5 * tall
    form = torch.maximum(form, mask * near * (1 - around(rest[None])[0]))  # slivers of lines that are slightly turned
    ruled = _is_ruled(runs(thickened(mask[None]), after, 0.66 * tall)[0], columns)
    return form * (digits & torch.logical_not(ruled))


def _slanted(masks: Tensor, tall: Tensor) -> Tensor:
    """Maximum over as many rows as a slightly turned line of `tall` cells covers."""
    rows = thickened(masks)
    return torch.maximum(rows, thickened(rows) * (tall > 60)) if masks.size(1) > 80 else rows


def _lines(mask: Tensor, flat: Tensor, after: Tensor, length: Tensor, thick: Tensor) -> Tensor:
    """Lines along the rows, without the strokes that cross them."""
    gap, rows = following(after, 0.15 * length), following(after, thick + 1)
    found = flat * runs(thickened(flat[None]), after, length, 0.85)[0]
    band = (found @ (gap + gap.t()) > 0).to(mask.dtype)
    rest = mask * (1 - band)
    return mask * band * (1 - ((rows @ rest > 0) & (rows.t() @ rest > 0)).to(mask.dtype))


def _walls(both: Tensor, printed: Tensor, thin: Tensor, after: Tensor, tall: Tensor) -> Tensor:
    """The walls of boxes or of a row of cells, if most of the other ink has a wall on all four sides.

    Args:
        both: the ink and the ink transposed, (2, side, side).
        printed: of these, what may be a wall.
        thin: of these, what is thin across the rows.
        after: distances of cells, (side, side).
        tall: height of a digit or of a cell, ().
    """
    least = torch.stack((0.7 * tall, 0.8 * tall))[:, None, None]
    long = printed * runs(_slanted(both, tall), after, least)
    # a wall that is slightly turned leaves the three rows
    lines = _continued(long * thin, printed * thin, after, 0.3 * tall)
    lying, upright = lines[0], lines[1].t()
    walls = torch.maximum(lying, upright)
    crossings = around(walls[None])[0] * torch.maximum(long[0], long[1].t())
    walls = torch.maximum(walls, crossings)
    rest = both[0] * (1 - around(walls[None])[0])
    columns = following(after, 1.6 * tall)
    inside = (rest * _within(lying, after, tall) * (upright @ columns > 0) * (upright @ columns.t() > 0)).sum()
    return walls * ((inside >= 0.7 * rest.sum()) & (inside >= 0.5 * tall))


def _continued(lines: Tensor, thin: Tensor, after: Tensor, length: Tensor) -> Tensor:
    """`lines` along the rows and their continuation in the next rows: `thin` ink in runs of at least `length` ()."""
    near = following(after, length)
    beside = around(lines) @ (near + near.t()) > 0
    return torch.maximum(lines, thin * runs(thickened(thin), after, length) * beside)


def _is_pair(lines: Tensor, mask: Tensor, after: Tensor, tall: Tensor) -> Tensor:
    """Whether most ink has a line above and a line below, as in an ellipse."""
    rest = mask * (1 - around(lines[None])[0])
    return (rest * _within(lines, after, tall)).sum() > 0.5 * rest.sum()


def _within(lines: Tensor, after: Tensor, tall: Tensor) -> Tensor:
    """Where there is a line above and a line below, no farther than a cell is high."""
    rows = following(after, 1.1 * tall)
    return (rows @ lines > 0) & (rows.t() @ lines > 0)


def _rings_and_combs(mask: Tensor, found: Components, after: Tensor, thick: Tensor, solid: Tensor) -> Tensor:
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
    before = ((after >= 0.5 * thick) & (after < 1000)).to(mask.dtype)
    beside, above = (ring @ before > 0) & (ring @ before.t() > 0), (before @ ring > 0) & (before.t() @ ring > 0)
    drawn = (ring * solid).sum() <= 0.1 * ring.sum()
    ring = ring * torch.logical_not(beside & above & drawn)  # except ink with the ring on all four sides
    return torch.maximum(ring * (large & empty & surrounds(ring, content)), comb.to(mask.dtype))


def _is_ruled(lines: Tensor, columns: Tensor) -> Tensor:
    """Whether at least three `lines` begin at the left side and at least three end at the right side."""
    columns = columns.view(lines.size(0), -1).amax(dim=1)
    last = columns - F.pad(columns, (0, 3))[3:] * columns
    ends = F.pad(torch.stack((lines[:, :3].amax(dim=1), (lines * last).amax(dim=1))), (1, 0))
    return (ends[:, 1:] - ends[:, :-1]).clamp(min=0).sum(dim=1).min() >= 3
