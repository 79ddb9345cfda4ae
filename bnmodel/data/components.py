"""Connected components of a square mask of 0 and 1, a float tensor (side, side), and what they surround."""

from typing import NamedTuple

import torch
from torch import Tensor

from bnmodel.data.ruled_lines import around


class Components(NamedTuple):
    """Bounds of each cell's connected component, ends exclusive, (side, side) each; undefined where there is no ink."""

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def components(mask: Tensor, turns: int = 4) -> Components:
    """Bounds of the connected components (8 neighbours) of a square mask.

    Each cell points to the lowest, highest, rightmost and leftmost known cell of its component. In each step it takes
    the best pointer of its neighbours, then the pointer of the cell it points to, so that distances double (pointer
    jumping: Shiloach & Vishkin, Journal of Algorithms 3, 1982). Paths that turn back stop this; so cells finally merge
    the bounds of all four cells they point to, once per turn of the path, for at most `turns` turns.
    """
    side = mask.size(0)
    count = side * side
    ink = torch.stack((mask, mask, mask.t(), mask.t()))  # down, up; and with rows and columns exchanged right, left
    ink = ink[None]  # four dimensions, as pooling in exported files has them
    plane = torch.arange(4, device=mask.device, dtype=mask.dtype)[:, None, None]
    origin = (plane - 2 * (plane / 2).floor()) * (count - 1)
    index = torch.arange(count, device=mask.device, dtype=mask.dtype).view(side, side)
    best = (index - origin).abs() * ink  # rank from the top (bottom, left, right), different for each cell
    for _ in range(turns + 2):
        best = around(around(best) * ink).view(4, count)
        best = best.gather(1, (best - origin[:, 0]).abs().long()).view(1, 4, side, side) * ink
    place = (best[0] - origin).abs()
    line = ((place + 0.5) / side).floor()
    across = place - line * side
    row = torch.cat((line[:2], across[2:].transpose(1, 2)))
    column = torch.cat((across[:2], line[2:].transpose(1, 2)))
    pointers = [one.expand(4, count) for one in (row * side + column).long().view(4, 1, count).unbind()]
    extents = torch.stack((row[0] + 1, side - row[1], column[2] + 1, side - column[3]))[None] * mask
    for _ in range(turns):
        extents = around(extents).view(4, count)
        for pointer in pointers:  # of a cell with ink: to a cell with ink
            extents = torch.maximum(extents, extents.gather(1, pointer))
        extents = extents.view(1, 4, side, side) * mask
    bottom, top, right, left = extents[0].unbind()
    return Components(side - top, bottom, side - left, right)


def surrounds(ink: Tensor, content: Tensor) -> Tensor:
    """Whether there is ink on all four sides of at least 70% of the bounding box of `content`."""
    index, first, last = _ends(content)
    outside = torch.stack((index < first, index > last), dim=1).to(ink.dtype)  # (2, 2, side): before and behind
    rows, columns = ((index >= first) & (index <= last)).unbind()
    filled = torch.stack((columns, rows)).to(ink.dtype)[:, None]  # those above and below, those left and right
    sides = (outside @ torch.stack((ink, ink.t())) > 0) * filled
    return ((sides.sum(dim=2) - 0.7 * filled.sum(dim=2)).min() >= 0) & (filled.max() > 0)


def box_around(mask: Tensor) -> Tensor:
    """Mask → mask of its bounding box; also of several, (…, side, side)."""
    index, first, last = _ends(mask)
    rows, columns = ((index >= first) & (index <= last)).unbind(dim=-2)
    return (rows[..., None] & columns[..., None, :]).to(mask.dtype)


def _ends(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks (…, side, side) → the indices of rows and columns (side,); the first and last of each with ink (…, 2, 1).

    Without any ink the first is later than the last.
    """
    lines = torch.stack((mask.amax(dim=-1), mask.amax(dim=-2)), dim=-2) > 0
    index = torch.arange(mask.size(-1), device=mask.device, dtype=mask.dtype)
    first = torch.where(lines, index, float(mask.size(-1))).amin(dim=-1, keepdim=True)
    return index, first, torch.where(lines, index, -1.0).amax(dim=-1, keepdim=True)
