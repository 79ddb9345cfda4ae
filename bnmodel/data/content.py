"""The part of the ink that is the drawing, without frames, ruled lines, slivers at the border and specks.

Works on CELLS × CELLS cells of 4 × 4 working pixels (CELLS = 80). Masks are float tensors of 0 and 1, often several at
once: (masks, CELLS, CELLS).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.components import Components, box_around, components, surrounds
from bnmodel.data.forms import without_forms
from bnmodel.data.ink import Ink, enlarged, mixed
from bnmodel.data.ruled_lines import Sheet, around, without_lines

Bars = tuple[Tensor, Tensor, Tensor, Tensor]  # cells filled by dropped lines above, below, before and behind


def find_content(found: Ink, side: int = 80) -> tuple[Tensor, Tensor, Tensor]:
    """Find the drawing, without printed forms, which are searched for in `side` × `side` cells: 80 or 160.

    Two thresholds are tried, a quarter and half of the pen's contrast. The higher one is used where the lower one
    includes ruled lines: much more ink, or ink that reaches the border.

    Returns:
        The mask of the drawing (CELLS, CELLS); the contrast () that drawn pixels exceed; the contrast of the drawing
        alone (SIDE, SIDE).
    """
    contrast = without_forms(found.contrast, found.columns, side)
    cells, forms = _highest_of_cells(contrast), _highest_of_cells(found.contrast - contrast)
    cells = cells * found.area  # (CELLS, CELLS)
    sheet = Sheet(found.rows.view(80, 4).amax(dim=1).sum(), found.columns.view(80, 4).amax(dim=1).sum())
    pen = _pen(cells, sheet)
    lower, higher = (cells > 0.25 * pen) & (cells > 0), (cells > 0.5 * pen) & (cells > 0)
    masks = torch.stack((lower.to(cells.dtype), higher.to(cells.dtype)))
    kept = without_lines(masks, cells, sheet)
    extent = _extent(kept * _inset(sheet, 0.08))
    lines = (masks - kept).sum(dim=(1, 2))
    at_border = (kept * (1 - _inset(sheet, 0.0, 1.0))).sum(dim=(1, 2))
    ruled = (
        (extent[0] > 1.25 * extent[1])
        | ((lines[0] > 1.5 * lines[1] + 8) & (extent[1] >= 0.8 * extent[0]))
        | ((at_border[0] > 0) & (at_border[1] == 0))
    )
    upper = ruled.to(cells.dtype)
    mask = mixed(upper, masks[1], masks[0])
    # what belongs to a line at the lower threshold belongs to it at the higher one, where the line may be interrupted
    kept_ink = kept[0] * torch.maximum(kept[1], 1 - upper)
    uncertain = _is_ruled(masks[0] - kept[0], sheet) | (found.shadow > 0)
    edges = (found.limits[:, 1] - found.limits[:, 0] > 0.05).to(cells.dtype).t()  # of shadows
    chosen = _choose(mask, kept_ink, uncertain, around(around(around(edges[None])))[0], cells, sheet)
    # small and faint parts within its bounding box belong to it, but do not extend the box
    box = box_around(chosen)
    # walls around the drawing stay dropped where their remains form the edge of this box
    form, edge = (forms > cells).to(mask.dtype), around(around(around(1 - box[None])))[0]
    other = torch.maximum(mask, form * edge * surrounds(form, box * (1 - edge)))
    chosen = torch.maximum(chosen, box * (1 - other))
    dropped = other * (1 - chosen)
    # grown by a cell or a canvas pixel for soft edges, but not into what was dropped
    area = chosen
    for cell in (0.0, 4.0, 8.0, 12.0):  # working pixels
        near = torch.maximum(area, around(area[None])[0] * (1 - dropped))
        area = mixed((cell * found.step <= 1.2).to(area.dtype), near, area)
    faint = upper * 0.35 * pen
    return area, faint, contrast * enlarged(area) * (contrast > faint)


def _highest_of_cells(pixels: Tensor) -> Tensor:
    """(SIDE, SIDE) → (CELLS, CELLS)."""
    return pixels.view(80, 4, 320).amax(dim=1).view(80, 80, 4).amax(dim=2)


def _pen(cells: Tensor, sheet: Sheet) -> Tensor:
    """Contrast of the strongest ink that is neither a line nor at the border; without such ink, of any."""
    strongest = cells.max()
    mask = ((cells > 0.15 * strongest) & (cells > 0)).to(cells.dtype)[None]
    inside = (cells * without_lines(mask, cells, sheet)[0] * _inset(sheet, 0.08)).max()
    return mixed((inside > 0).to(cells.dtype), inside, strongest)


def _inset(sheet: Sheet, share: float, cells: float = 0.0) -> Tensor:
    """1 inside the picture except for a margin, a share of its sides plus a number of cells; (CELLS, CELLS)."""
    index = torch.arange(80, device=sheet.height.device)
    top, left = share * sheet.height + cells, share * sheet.width + cells
    row = (index >= top) & (index < sheet.height - top)
    column = (index >= left) & (index < sheet.width - left)
    return (row[:, None] & column).to(torch.float32)


def _choose(mask: Tensor, kept: Tensor, uncertain: Tensor, edges: Tensor, cells: Tensor, sheet: Sheet) -> Tensor:
    """The components that do not touch the border, except those much smaller than the largest one.

    If these are tiny, or only a small part of the ink inside the picture and not enclosed by the rest, the drawing
    itself touches the border, and all ink is returned. Nothing is returned if the ink covers a square of 0.35 of the
    picture's longer side, which is a shadow; if all ink is small, on ruled paper or under a shadow (`uncertain`); or if
    it is only at a shadow's `edges`.
    """
    found = components(kept)
    size = torch.maximum(found.bottom - found.top, found.right - found.left)
    touching = (found.top <= 0) | (found.left <= 0) | (found.bottom >= sheet.height) | (found.right >= sheet.width)
    lines = mask - kept
    bars = (*_bars(lines.sum(dim=1), sheet.height, sheet.width), *_bars(lines.sum(dim=0), sheet.width, sheet.height))
    touching = touching & torch.logical_not(_beside_others(kept * torch.logical_not(touching), found, sheet))
    touching = touching | _in_corner(bars, found, sheet)
    free = size * kept * torch.logical_not(touching)  # (CELLS, CELLS)
    longest = torch.maximum(sheet.height, sheet.width)
    free = free * (1 - _frame_lines(free, lines, bars, kept, found, sheet))
    largest = free.max()
    mass = cells * cells * _inset(sheet, 0.15) * kept
    share = (mass * (free > 0)).sum()
    content = (free > 0).to(mask.dtype)
    enclosed = (largest >= 0.2 * longest) & surrounds(mask * (1 - content), content)
    enough = (largest >= 0.12 * longest) & ((share >= 0.35 * mass.sum()) | enclosed)
    parts = ((free >= 0.2 * largest) & (free > 0)).to(mask.dtype)
    parts = torch.maximum(parts, box_around(parts) * (free > 0))
    drawing = torch.ones_like(longest)
    for side in (15, 18, 23, 28):
        uncovered = F.max_pool2d(1 - mask[None, None], side, 1).min()  # 0 where a square of this side is covered
        drawing = torch.minimum(drawing, torch.maximum(uncovered, (side < 0.35 * longest).to(mask.dtype)))
    # grains all over the picture are no drawing, nor is ink along one side only, such as a table beside an empty sheet
    widest = (size * kept).max()
    spread = _length(torch.stack((kept.amax(dim=1), kept.amax(dim=0)))) / torch.stack((sheet.height, sheet.width))
    grains = ((widest <= 2) & (cells.max() < 0.5)) | ((widest < 0.06 * longest) & (spread.min() > 0.4))
    rim = (mask * (1 - _inset(sheet, 0.0, 1.0))).sum()
    along = (rim >= 0.5 * torch.minimum(sheet.height, sheet.width)) & (rim < 1.5 * (sheet.height + sheet.width))
    beside = along & ((mask * _inset(sheet, 0.2)).sum() == 0)
    drawing = drawing * torch.logical_not(grains | beside)
    chosen = mixed(enough.to(mask.dtype), parts, mask * drawing)
    return chosen * torch.logical_not(uncertain & ((size * kept * (1 - edges)).max() < 0.12 * longest))


def _is_ruled(lines: Tensor, sheet: Sheet) -> Tensor:
    """Whether dropped `lines` fill at least four separate rows or columns; an 8 of straight segments has three."""
    filled = torch.stack((lines.sum(dim=1) >= 0.6 * sheet.width, lines.sum(dim=0) >= 0.6 * sheet.height))
    filled = F.pad(filled.to(lines.dtype), (1, 0))
    return ((filled[:, 1:] - filled[:, :-1]).clamp(min=0).sum(dim=1) >= 4).any()


def _beside_others(free: Tensor, found: Components, sheet: Sheet) -> Tensor:
    """Components that reach the upper or the lower border alone, as tall as those that are `free` and no line.

    These are digits of a number, such as a 7 that extends below the others. A piece of another line is less tall.
    """
    height, width = found.bottom - found.top, found.right - found.left
    tallest = (height * free).max()
    inside = (found.left > 0) & (found.right < sheet.width) & (height < sheet.height)
    alike = (height >= 0.8 * tallest) & (height <= 1.3 * tallest)
    return inside & alike & (width >= 0.2 * height) & (width <= 1.2 * height)


def _in_corner(bars: Bars, found: Components, sheet: Sheet) -> Tensor:
    """Components that adjoin bars of dropped lines along two adjacent sides, such as the table around a sheet."""
    above, below, before, behind = bars
    lying = ((above > 0) & (found.top <= above + 1)) | ((below > 0) & (found.bottom >= sheet.height - below - 1))
    upright = ((before > 0) & (found.left <= before + 1)) | ((behind > 0) & (found.right >= sheet.width - behind - 1))
    return lying & upright


def _frame_lines(free: Tensor, lines: Tensor, bars: Bars, kept: Tensor, found: Components, sheet: Sheet) -> Tensor:
    """Mask of the remains of a frame: thin components along a side of the picture, or along dropped `lines` there.

    A 1 beside other digits is thin too, but about as long as they are. So ink along a side is a frame if it is longer
    than the digits and than half of the side, or much shorter than the digits. Ink along a bar of dropped lines is the
    remains of a slanted bar, such as the table beside a sheet.
    """
    height, width = found.bottom - found.top, found.right - found.left
    thin = (torch.minimum(height, width) <= 0.15 * torch.maximum(height, width) + 1) & (free > 0)
    other = kept * (thin | (free <= 0))
    longest = torch.where(thin, 0.0, free).max()
    upright, lying = (thin & (height > width)).to(free.dtype), (thin & (width > height)).to(free.dtype)
    above, below, before, behind = bars
    beside_line = around(lines[None])[0]
    remains = torch.zeros_like(free)
    for ink, distance, bar, side, across, axis in (
        (upright, found.left, before, sheet.height, sheet.width, 1),
        (upright, sheet.width - found.right, behind, sheet.height, sheet.width, 1),
        (lying, found.top, above, sheet.width, sheet.height, 0),
        (lying, sheet.height - found.bottom, below, sheet.width, sheet.height, 0),
    ):
        near = other * (distance - bar < 0.08 * across)
        length, against = _length(torch.stack((near, near * beside_line)).amax(dim=axis + 1)).unbind()
        wedge = (bar > 0) & (against >= 0.6 * length)
        remains = torch.maximum(remains, ink * near * (_no_digit(length, side, longest) | wedge))
    return remains


def _no_digit(length: Tensor, side: Tensor, longest: Tensor) -> Tensor:
    """Whether ink along a side is too long or too short for a digit. `longest`: length of the longest other digit."""
    return (((length > 0.5 * side) & (length > 1.1 * longest)) | (length < 0.35 * longest)) & (longest > 0)


def _bars(covered: Tensor, across: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Number of dropped cells in each row (CELLS,) → number of rows that they fill at the start and at the end.

    `across`: number of rows in the picture; `length`: cells per row.
    """
    index = torch.arange(80, device=covered.device, dtype=covered.dtype)
    other = (covered < 0.6 * length) & (index < across)
    return torch.where(other, index, across).min(), across - 1 - torch.where(other, index, -1.0).max()


def _extent(masks: Tensor) -> Tensor:
    """Longer side of the bounding box of each mask, in cells, (masks,)."""
    return _length(torch.stack((masks.amax(dim=2), masks.amax(dim=1)))).amax(dim=0)


def _length(lines: Tensor) -> Tensor:
    """(…, CELLS) → from the first to the last positive value of each, (…); at most 0 without any."""
    index = torch.arange(80, device=lines.device, dtype=lines.dtype)
    last, first = torch.where(lines > 0, index, -1.0).amax(dim=-1), torch.where(lines > 0, index, 80.0).amin(dim=-1)
    return last + 1 - first
