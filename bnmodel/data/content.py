"""What of the ink is the drawing: frames, ruled lines, slivers at the border and specks are not.

All of it works on CELLS × CELLS cells of ink and on several masks of them at once, (masks, CELLS, CELLS) of 0 and 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.ink import Ink

CELLS = 80  # per side; a cell is 4 × 4 working pixels
STEPS = 100  # cells that a component's extent spreads


class Sheet(NamedTuple):
    """Size of the picture in cells, float32 ()."""

    height: Tensor
    width: Tensor


class Components(NamedTuple):
    """Extent of the connected component of every cell, ends exclusive, (masks, CELLS, CELLS); only valid on ink."""

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def find_content(found: Ink, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Where the drawing is, (CELLS, CELLS) of 0 and 1, and above which contrast () it is drawing.

    Two thresholds are tried, a quarter and half of the pen's contrast; the upper one wins where the lower one takes in
    ruled lines.
    """
    cells = found.contrast.view(80, 4, 320).amax(dim=1).view(80, 80, 4).amax(dim=2)  # (CELLS, CELLS)
    sheet = Sheet(found.rows.view(80, 4).amax(dim=1).sum(), found.columns.view(80, 4).amax(dim=1).sum())
    pen = _pen(cells, sheet)
    masks = torch.stack(((cells > 0.25 * pen) & (cells > 0), (cells > 0.5 * pen) & (cells > 0))).to(cells.dtype)
    kept = without_lines(masks, cells, sheet)
    extent = _extent(kept * _inset(sheet, 0.08))
    lines = (masks - kept).sum(dim=(1, 2))
    upper = (extent[0] > 1.25 * extent[1]) | ((lines[0] > 1.5 * lines[1] + 8) & (extent[1] >= 0.8 * extent[0]))
    mask = torch.where(upper, masks[1], masks[0])
    chosen = _choose(mask[None], torch.where(upper, kept[1], kept[0])[None], cells, sheet, steps)[0]
    # small and faint parts within its box belong to it; its box they do not stretch
    chosen = torch.maximum(chosen, _box_around(chosen) * (1 - mask))
    dropped = mask * (1 - chosen)
    # a cell more around it for soft edges, or a canvas pixel, but not where something was dropped
    area = chosen
    for cell in (0.0, 4.0, 8.0, 12.0):  # working pixels
        near = torch.maximum(area, _spread(area[None], 1, 1)[0] * (1 - dropped))
        area = torch.where(cell * found.step <= 1.2, near, area)
    return area, torch.where(upper, 0.35 * pen, torch.zeros_like(pen))


def enlarge(area: Tensor) -> Tensor:
    """(CELLS, CELLS) → (SIDE, SIDE)"""
    return area[:, None, :, None].expand(80, 4, 80, 4).reshape(320, 320)


def _pen(cells: Tensor, sheet: Sheet) -> Tensor:
    """Contrast of the strongest ink that is neither a line nor at the border; of any where there is none."""
    strongest = cells.max()
    mask = ((cells > 0.15 * strongest) & (cells > 0)).to(cells.dtype)[None]
    inside = (cells * without_lines(mask, cells, sheet)[0] * _inset(sheet, 0.08)).max()
    return torch.where(inside > 0, inside, strongest)


def _inset(sheet: Sheet, margin: float) -> Tensor:
    """1 inside the picture without a margin, as a share of its sides; (CELLS, CELLS)."""
    index = torch.arange(80, device=sheet.height.device)
    row = (index >= margin * sheet.height) & (index < (1 - margin) * sheet.height)
    column = (index >= margin * sheet.width) & (index < (1 - margin) * sheet.width)
    return (row[:, None] & column).to(torch.float32)


# --- lines from side to side -----------------------------------------------------------------------------------------


def without_lines(masks: Tensor, cells: Tensor, sheet: Sheet) -> Tensor:
    """Masks without the lines that reach from side to side; a stroke that crosses a line, or is stronger, stays.

    Of a picture more than twice as long as wide, a line along it is rather a 1.
    """
    flat = _without_rows(masks, cells, sheet.width, sheet.height >= 0.5 * sheet.width)
    upright = _without_rows(masks.transpose(1, 2), cells.t(), sheet.height, sheet.width >= 0.5 * sheet.height)
    return torch.minimum(flat, upright.transpose(1, 2))


def _without_rows(masks: Tensor, cells: Tensor, width: Tensor, wanted: Tensor) -> Tensor:
    index = torch.arange(80, device=masks.device)
    last = (index >= width - 2) & (index < width)
    band, level = torch.zeros_like(masks[:, :, :1]), torch.zeros_like(masks[:, :, :1])
    for tilt in range(3):  # rows that the line is allowed to rise or fall, and no more than it does
        thick = _spread(masks, tilt, 0)
        covered = thick.sum(dim=2)  # (masks, CELLS)
        ends = thick[:, :, :2].amax(dim=2) * (thick * last).amax(dim=2)
        lines = ((covered >= 0.92 * width) & (ends > 0) & wanted).to(masks.dtype)[:, :, None]
        lines = lines * (1 - _spread(band, 4, 0))
        typical = _spread(cells * masks, tilt, 0).sum(dim=2) / covered.clamp(min=1)
        near = 0 if tilt == 0 else 1
        level = torch.maximum(level, _spread(typical[:, :, None] * lines, near, 0))
        band = torch.maximum(band, _spread(lines, near, 0))
    above = masks * (1 - band)
    below = above
    for _ in range(8):
        above = torch.maximum(above, F.pad(above, (0, 0, 1, 0))[:, :-1] * band)
        below = torch.maximum(below, F.pad(below, (0, 0, 0, 1))[:, 1:] * band)
    crossing = torch.minimum(_spread(above, 0, 1), _spread(below, 0, 1))
    stays = torch.maximum(crossing, (cells > 1.35 * level).to(masks.dtype))
    return masks * torch.maximum(stays, 1 - band)


def _spread(masks: Tensor, rows: int, columns: int) -> Tensor:
    """Maximum over the neighbours up to so many rows and columns away."""
    if rows == 0 and columns == 0:
        return masks
    return F.max_pool2d(masks, (2 * rows + 1, 2 * columns + 1), 1, (rows, columns))


# --- connected components --------------------------------------------------------------------------------------------


def components(masks: Tensor, steps: int = STEPS) -> Components:
    """Extents of connected components (8 neighbours) of square masks, spread from cell to cell."""
    side = masks.size(2)
    index = torch.arange(side, device=masks.device, dtype=masks.dtype)
    row, column = index[:, None].expand(side, side), index.expand(side, side)
    extents = torch.stack((side - row, row + 1, side - column, column + 1)) * masks[:, None]  # (masks, 4, side, side)
    for _ in range(steps):
        framed = F.pad(extents, (1, 1, 1, 1))
        tall = torch.maximum(torch.maximum(framed[:, :, :-2], framed[:, :, 1:-1]), framed[:, :, 2:])
        around = torch.maximum(torch.maximum(tall[:, :, :, :-2], tall[:, :, :, 1:-1]), tall[:, :, :, 2:])
        extents = around * masks[:, None]
    return Components(side - extents[:, 0], extents[:, 1], side - extents[:, 2], extents[:, 3])


def _choose(masks: Tensor, kept: Tensor, cells: Tensor, sheet: Sheet, steps: int) -> Tensor:
    """The components that do not touch the border and are not much smaller than the largest of these.

    Where these are tiny, or only a small part of what lies inside the picture, the drawing itself touches the border:
    then all of the ink.
    """
    found = components(kept, steps)
    size = torch.maximum(found.bottom - found.top, found.right - found.left)
    touching = (found.top <= 0) | (found.left <= 0) | (found.bottom >= sheet.height) | (found.right >= sheet.width)
    free = size * kept * torch.logical_not(touching)  # (masks, CELLS, CELLS)
    longest = torch.maximum(sheet.height, sheet.width)
    for _ in range(2):
        free = _without_ring(free, found, longest)
    largest = free.amax(dim=(1, 2), keepdim=True)
    mass = cells * cells * _inset(sheet, 0.15)
    share = (mass * (free > 0)).sum(dim=(1, 2), keepdim=True)
    enough = (largest >= 0.12 * longest) & (share >= 0.35 * (mass * kept).sum(dim=(1, 2), keepdim=True))
    parts = ((free >= 0.2 * largest) & (free > 0)).to(masks.dtype)
    parts = torch.maximum(parts, _box_around(parts[0]) * (free > 0))
    return torch.where(enough, parts, masks)


def _without_ring(free: Tensor, found: Components, longest: Tensor) -> Tensor:
    """Without the largest component, and all outside it, where it is a frame with straight sides around another one."""
    largest = free.amax(dim=(1, 2), keepdim=True)
    ring = (free >= largest) & (free > 0)
    top, left = torch.where(ring, found.top, 80.0), torch.where(ring, found.left, 80.0)
    top, left = top.amin(dim=(1, 2), keepdim=True), left.amin(dim=(1, 2), keepdim=True)
    bottom, right = torch.where(ring, found.bottom, 0.0), torch.where(ring, found.right, 0.0)
    bottom, right = bottom.amax(dim=(1, 2), keepdim=True), right.amax(dim=(1, 2), keepdim=True)
    inside = (found.top > top + 1) & (found.bottom < bottom - 1) & (found.left > left + 1) & (found.right < right - 1)
    index = torch.arange(80, device=free.device, dtype=free.dtype)
    row, column = index[:, None], index[None]
    tall, wide = 0.7 * (bottom - top), 0.7 * (right - left)
    straight = (
        ((ring & (row < top + 4)).any(dim=1, keepdim=True).sum(dim=2, keepdim=True) >= wide)
        & ((ring & (row >= bottom - 4)).any(dim=1, keepdim=True).sum(dim=2, keepdim=True) >= wide)
        & ((ring & (column < left + 4)).any(dim=2, keepdim=True).sum(dim=1, keepdim=True) >= tall)
        & ((ring & (column >= right - 4)).any(dim=2, keepdim=True).sum(dim=1, keepdim=True) >= tall)
    )
    within = free * inside
    content = within.amax(dim=(1, 2), keepdim=True) >= 0.25 * largest
    return torch.where(straight & content & (largest >= 0.5 * longest), within, free)


def _box_around(mask: Tensor) -> Tensor:
    """(CELLS, CELLS) → 1 in the box around what is 1."""
    rows, columns = mask.amax(dim=1), mask.amax(dim=0)
    return _filled(rows)[:, None] * _filled(columns)


def _filled(line: Tensor) -> Tensor:
    """(CELLS,) → 1 from the first to the last 1."""
    index = torch.arange(80, device=line.device, dtype=line.dtype)
    first, last = torch.where(line > 0, index, 80.0).min(), torch.where(line > 0, index, -1.0).max()
    return ((index >= first) & (index <= last)).to(line.dtype)


def _extent(masks: Tensor) -> Tensor:
    """Longer side of the box around each mask, in cells, float32 (masks,)."""
    index = torch.arange(80, device=masks.device, dtype=masks.dtype)
    rows, columns = masks.amax(dim=2) > 0, masks.amax(dim=1) > 0  # (masks, CELLS)
    tall = torch.where(rows, index, -1.0).amax(dim=1) - torch.where(rows, index, 80.0).amin(dim=1)
    wide = torch.where(columns, index, -1.0).amax(dim=1) - torch.where(columns, index, 80.0).amin(dim=1)
    return torch.maximum(tall, wide) + 1
