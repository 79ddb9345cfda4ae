"""The part of the ink that is the drawing, without frames, ruled lines, slivers at the border and specks.

Works on CELLS × CELLS cells of 4 × 4 working pixels (CELLS = 80). Masks are float tensors of 0 and 1, often several at
once: (masks, CELLS, CELLS).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.components import Components, box_around, components, surrounds
from bnmodel.data.forms import find_forms
from bnmodel.data.ink import Ink, enlarged
from bnmodel.data.ruled_lines import Ruling, Sheet, around, find_ruling, without_lines


class Insets(NamedTuple):
    """1 inside the picture except for a margin, 8, 15 or 20% of its sides or a cell, (CELLS, CELLS) each."""

    by_8: Tensor
    by_15: Tensor
    by_20: Tensor
    by_cell: Tensor


def find_content(found: Ink, side: int = 80) -> tuple[Tensor, Tensor, Tensor]:
    """Find the drawing, without printed forms, which are searched for in `side` × `side` cells: 80 or 160.

    Two thresholds are tried, a quarter and half of the pen's contrast. The higher one is used where the lower one
    includes ruled lines: much more ink, or ink that reaches the border.

    Returns:
        The mask of the drawing (CELLS, CELLS); the contrast () that drawn pixels exceed; the contrast of the drawing
        alone (SIDE, SIDE).
    """
    fine = highest_of_cells(found.contrast, side) * enlarged(found.area, side)
    form = find_forms(fine, found.columns)
    cells, forms = highest_of_cells(fine * (1 - form), 80), highest_of_cells(fine * form, 80)
    sheet = Sheet(found.rows.view(80, 4).amax(dim=1).sum(), found.columns.view(80, 4).amax(dim=1).sum())
    insets = _insets(sheet)
    ruling = find_ruling(cells, sheet)
    pen = _pen(cells, insets.by_8, ruling)
    thresholds = torch.tensor((0.25, 0.5), dtype=pen.dtype, device=pen.device)[:, None, None] * pen.clamp(min=1e-6)
    masks = (cells > thresholds).to(cells.dtype)
    kept = without_lines(masks, thresholds, ruling)
    dropped = masks - kept
    extent, extent_above = _extent(kept * insets.by_8).unbind()
    lines, lines_above = dropped.sum(dim=(1, 2)).unbind()
    at_border, at_border_above = (kept * (1 - insets.by_cell)).sum(dim=(1, 2)).unbind()
    ruled = (
        (extent > 1.25 * extent_above)
        | ((lines > 1.5 * lines_above + 8) & (extent_above >= 0.8 * extent))
        | ((at_border > 0) & (at_border_above == 0))
    )
    mask = torch.where(ruled, masks[1], masks[0])
    # what belongs to a line at the lower threshold belongs to it at the higher one, where the line may be interrupted
    kept_ink = torch.where(ruled, kept[0] * kept[1], kept[0])
    uncertain = ruling.ruled | (found.shadow > 0)
    edges = (found.limits[:, 1] - found.limits[:, 0] > 0.05).to(cells.dtype).t()  # of shadows
    edges = around(around(around(edges[None])))[0]
    # ink of full contrast is no shadow, nor is strong ink on paper of one colour, unless it consists of grains
    strong = pen > torch.where(found.unevenness > 0, 0.9, 0.4)
    solid = strong & (found.contrast.sum() > 6 * pen * mask.sum())
    chosen = _choose(mask, kept_ink, uncertain, edges, cells, insets, sheet, solid)
    # small and faint parts within its bounding box and on the same note belong to it, but do not extend the box
    box = box_around(chosen)
    # walls around the drawing stay dropped where their remains form the edge of this box
    walls, edge = (forms > cells).to(mask.dtype), around(around(around(1 - box[None])))[0]
    other = torch.maximum(mask, walls * edge * surrounds(walls, box * (1 - edge)))
    chosen = torch.maximum(chosen, box * (1 - other) * found.area)
    dropped = torch.maximum(other * (1 - chosen), 1 - found.area)
    # grown by a cell or a canvas pixel for soft edges, but not into what was dropped or off the note
    area = chosen
    for cell in (0.0, 4.0, 8.0, 12.0):  # working pixels
        near = torch.maximum(area, around(area[None])[0] * (1 - dropped))
        area = torch.where(cell * found.step <= 1.2, near, area)
    faint = torch.where(ruled, 0.35 * pen, 0.0)
    ink = enlarged(enlarged(area, side) * (1 - form), 320)
    return area, faint, found.contrast * ink * (found.contrast > faint)


def highest_of_cells(pixels: Tensor, side: int) -> Tensor:
    """Square pixels → the largest value of each of `side` × `side` cells."""
    count = pixels.size(0)
    if count == side:
        return pixels
    return pixels.view(side, -1, count).amax(dim=1).view(side, side, -1).amax(dim=2)


def _pen(cells: Tensor, inside: Tensor, ruling: Ruling) -> Tensor:
    """Contrast of the strongest ink that is `inside` and no line; without such ink, of any."""
    strongest = cells.max()
    threshold = (0.15 * strongest).clamp(min=1e-6)[None, None, None]
    found = (cells * without_lines((cells > threshold).to(cells.dtype), threshold, ruling)[0] * inside).max()
    return torch.where(found > 0, found, strongest)


def _insets(sheet: Sheet) -> Insets:
    index = torch.arange(80, device=sheet.height.device)
    share = torch.tensor((0.08, 0.15, 0.2, 0.0), device=index.device)[:, None]
    cells = torch.tensor((0.0, 0.0, 0.0, 1.0), device=index.device)[:, None]
    sides = torch.stack((sheet.height, sheet.width))[:, None, None]
    margins = share * sides + cells  # (2, 4, 1)
    rows, columns = ((index >= margins) & (index < sides - margins)).unbind()  # (4, CELLS) each
    by_8, by_15, by_20, by_cell = (rows[:, :, None] & columns[:, None]).to(torch.float32).unbind()
    return Insets(by_8, by_15, by_20, by_cell)


def _choose(
    mask: Tensor,
    kept: Tensor,
    uncertain: Tensor,
    edges: Tensor,
    cells: Tensor,
    insets: Insets,
    sheet: Sheet,
    solid: Tensor,
) -> Tensor:
    """The components that do not touch the border, except those much smaller than the largest one.

    If these are tiny, or only a small part of the ink inside the picture and not enclosed by the rest, the drawing
    itself touches the border, and all ink is returned. Nothing is returned if the ink covers a square of 0.35 of the
    picture's longer side, which is a shadow unless the ink is `solid`; if all ink is small or flat, on ruled paper or
    under a shadow (`uncertain`); or if it is only at a shadow's `edges`.
    """
    found = components(kept)
    size = torch.maximum(found.bottom - found.top, found.right - found.left)
    away = torch.stack((found.top, found.left, sheet.height - found.bottom, sheet.width - found.right))
    inside = away.amin(dim=0) > 0
    lines = mask - kept
    bars = _bars(lines, sheet)[:, None, None]
    inside = inside | _beside_others(kept * inside, found, sheet)
    inside = inside & torch.logical_not(_in_corner(bars, away))
    free = size * kept * inside  # (CELLS, CELLS)
    longest = torch.maximum(sheet.height, sheet.width)
    free = free * (1 - _frame_lines(free, lines, bars, away, kept, found, sheet))
    largest = free.max()
    mass = cells * cells * insets.by_15 * kept
    share = (mass * (free > 0)).sum()
    content = (free > 0).to(mask.dtype)
    enclosed = (largest >= 0.2 * longest) & surrounds(mask * (1 - content), content)
    enough = (largest >= 0.12 * longest) & ((share >= 0.35 * mass.sum()) | enclosed)
    parts = ((free >= 0.2 * largest) & (free > 0)).to(mask.dtype)
    parts = torch.maximum(parts, box_around(parts) * (free > 0))
    # grains all over the picture are no drawing, nor is ink along one side only, such as a table beside an empty sheet
    widest = (size * kept).max()
    spread = _length(torch.stack((kept.amax(dim=1), kept.amax(dim=0)))) / torch.stack((sheet.height, sheet.width))
    grains = ((widest <= 2) & (cells.max() < 0.5)) | ((widest < 0.06 * longest) & (spread.min() > 0.4))
    rim = (mask * (1 - insets.by_cell)).sum()
    along = (rim >= 0.5 * torch.minimum(sheet.height, sheet.width)) & (rim < 1.5 * (sheet.height + sheet.width))
    beside = along & ((mask * insets.by_20).sum() == 0)
    shadow = _has_square(mask, longest) & torch.logical_not(solid)
    chosen = torch.where(enough, parts, mask * torch.logical_not(grains | beside | shadow))
    height = found.bottom - found.top  # remains of ruled lines are flat
    return chosen * torch.logical_not(uncertain & ((height * kept * (1 - edges)).max() < 0.12 * longest))


def _has_square(mask: Tensor, longest: Tensor) -> Tensor:
    """Whether `mask` covers a square of about 0.35 times the longer side of the picture."""
    uncovered = [F.max_pool2d(1 - mask[None, None], 15, 1)]
    for more in (3, 5, 5):  # 0 where a square of 15, 18, 23 or 28 cells is covered
        uncovered.append(F.max_pool2d(uncovered[-1], more + 1, 1))
    sides = torch.tensor((15, 18, 23, 28), device=mask.device)
    return ((torch.stack([one.min() for one in uncovered]) == 0) & (sides >= 0.35 * longest)).any()


def _beside_others(free: Tensor, found: Components, sheet: Sheet) -> Tensor:
    """Components that reach the upper or the lower border alone, as tall as those that are `free` and no line.

    These are digits of a number, such as a 7 that extends below the others. A piece of another line is less tall.
    """
    height, width = found.bottom - found.top, found.right - found.left
    tallest = (height * free).max()
    inside = (found.left > 0) & (found.right < sheet.width) & (height < sheet.height)
    alike = (height >= 0.8 * tallest) & (height <= 1.3 * tallest)
    return inside & alike & (width >= 0.2 * height) & (width <= 1.2 * height)


def _in_corner(bars: Tensor, away: Tensor) -> Tensor:
    """Components that adjoin bars of dropped lines along two adjacent sides, such as the table around a sheet.

    `away`: distance of the component from each side, (4, CELLS, CELLS).
    """
    above, before, below, behind = ((bars > 0) & (away <= bars + 1)).unbind()
    return (above | below) & (before | behind)


def _frame_lines(
    free: Tensor, lines: Tensor, bars: Tensor, away: Tensor, kept: Tensor, found: Components, sheet: Sheet
) -> Tensor:
    """Mask of the remains of a frame: thin components along a side of the picture, or along dropped `lines` there.

    A 1 beside other digits is thin too, but about as long as they are. So ink along a side is a frame if it is longer
    than the digits and than half of the side, or much shorter than the digits. Ink along a bar of dropped lines is the
    remains of a slanted bar, such as the table beside a sheet.
    """
    height, width = found.bottom - found.top, found.right - found.left
    thin = (torch.minimum(height, width) <= 0.15 * torch.maximum(height, width) + 1) & (free > 0)
    other = kept * (thin | (free <= 0))
    longest = torch.where(thin, 0.0, free).max()
    upright, lying = thin & (height > width), thin & (width > height)
    ink = torch.stack((lying, upright, lying, upright)).to(free.dtype)  # along the upper, left, lower and right side
    across, side = (
        torch.stack((sheet.height, sheet.width)).repeat(2),
        torch.stack((sheet.width, sheet.height)).repeat(2),
    )
    near = other * (away - bars < 0.08 * across[:, None, None])  # (4, CELLS, CELLS)
    along = torch.stack((near, near * around(lines[None])))
    flat = torch.tensor((True, False, True, False), device=free.device)[:, None]
    length, against = _length(torch.where(flat, along.amax(dim=2), along.amax(dim=3))).unbind()  # (4,) each
    wedge = (bars[:, 0, 0] > 0) & (against >= 0.6 * length)
    remains = (_no_digit(length, side, longest) | wedge)[:, None, None]
    return (ink * near * remains).amax(dim=0)


def _no_digit(length: Tensor, side: Tensor, longest: Tensor) -> Tensor:
    """Whether ink along a side is too long or too short for a digit. `longest`: length of the longest other digit."""
    return (((length > 0.5 * side) & (length > 1.1 * longest)) | (length < 0.35 * longest)) & (longest > 0)


def _bars(lines: Tensor, sheet: Sheet) -> Tensor:
    """How many rows or columns the dropped `lines` fill at the upper, left, lower and right side, (4,)."""
    index = torch.arange(80, device=lines.device, dtype=lines.dtype)
    covered = torch.stack((lines.sum(dim=1), lines.sum(dim=0)))  # per row, per column
    count, length = torch.stack((sheet.height, sheet.width)), torch.stack((sheet.width, sheet.height))
    other = (covered < 0.6 * length[:, None]) & (index < count[:, None])
    first, last = torch.where(other, index, count[:, None]).amin(dim=1), torch.where(other, index, -1.0).amax(dim=1)
    return torch.cat((first, count - 1 - last))


def _extent(masks: Tensor) -> Tensor:
    """Longer side of the bounding box of each mask, in cells, (masks,)."""
    return _length(torch.stack((masks.amax(dim=2), masks.amax(dim=1)))).amax(dim=0)


def _length(lines: Tensor) -> Tensor:
    """(…, CELLS) → from the first to the last positive value of each, (…); at most 0 without any."""
    index = torch.arange(80, device=lines.device, dtype=lines.dtype)
    last, first = torch.where(lines > 0, index, -1.0).amax(dim=-1), torch.where(lines > 0, index, 80.0).amin(dim=-1)
    return last + 1 - first
