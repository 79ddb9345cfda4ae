"""Removal of lines across the whole picture, such as ruled paper, on masks of cells as in `content.py`."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Sheet(NamedTuple):
    """Size of the picture in cells, float32 () each."""

    height: Tensor
    width: Tensor


class Ruling(NamedTuple):
    """Cells sheared so that the lines of ruled paper are level: along rows; and transposed, for lines along columns."""

    cells: Tensor  # (2, 1, CELLS, CELLS), contrast; 0 for columns of a picture more than twice as high as wide
    missing: Tensor  # (2, 1, CELLS, CELLS), 1 above and below the picture, in rows that are partly in it
    length: Tensor  # (2, 1, 1, 1), of the rows
    least: Tensor  # (2, 1, CELLS), number of inked cells that make a row a line
    back: Tensor  # (2, 1, CELLS, CELLS), int64, the row in `cells` of each cell of the picture
    kept: Tensor  # (2, 1, CELLS, CELLS), 0 in corners of turned paper, which have no such row
    ruled: Tensor  # (), whether there are at least three parallel slanted lines, or four level ones


def find_ruling(cells: Tensor, sheet: Sheet) -> Ruling:
    """Shear by the slopes with most lines across the picture, if these are three or more.

    In a picture more than twice as high as wide, lines along columns are left out, since they may be a 1.
    """
    index = torch.arange(80, device=cells.device, dtype=cells.dtype)
    both = torch.stack((cells, cells.t() * (sheet.width >= 0.5 * sheet.height))).flatten(1)
    inked = thickened((both > (0.15 * cells.max()).clamp(min=1e-6)).to(cells.dtype).view(2, 80, 80)).flatten(1)
    sides = torch.stack((sheet.width, sheet.height, sheet.height, sheet.width)).view(2, 2, 1, 1, 1)
    length, depth = sides.unbind()  # (2, 1, 1, 1) each, of lines along rows and along columns
    slopes = torch.tensor((0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0, -4.0, 4.0, -5.0, 5.0), device=cells.device) / 32
    fall = (slopes[:, None, None] * (index + 0.5 - length / 2) + 0.5).floor()  # (2, slopes, 1, CELLS)
    rows = index[:, None] + fall
    beyond = (((rows < 0) | (rows >= depth)) & (index < length)).to(cells.dtype)
    place = (rows.clamp(0, 79) * 80 + index).long()  # (2, slopes, CELLS, CELLS)
    covered = (inked.gather(1, place.flatten(1)).view_as(beyond) * (1 - beyond)).sum(dim=3)
    missing = beyond * (beyond.sum(dim=3, keepdim=True) < 0.9 * length)  # of a row that is partly in the picture
    least = 0.92 * length[:, 0] - missing.sum(dim=3)
    full = F.pad(((covered >= least) & (covered >= 0.5 * length[:, 0])).to(cells.dtype), (1, 0))
    count = (full[:, :, 1:] - full[:, :, :-1]).clamp(min=0).sum(dim=2)  # of lines, (2, slopes)
    count = torch.where(slopes == 0, count + 1, count * (count >= 3))  # level if it has almost as many
    best = count.argmax(dim=1)  # ties: the first
    ruled = ((best > 0) | (count[:, 0] >= 5)).any()  # 5: four level lines, and the one added above
    best = best + 11 * index[:2].long()
    beyond = F.embedding(best, beyond.flatten(0, 1).flatten(1)).view(2, 1, 80, 80)
    chosen = both.gather(1, F.embedding(best, place.flatten(0, 1).flatten(1))).view(2, 1, 80, 80) * (1 - beyond)
    least = F.embedding(best, least.flatten(0, 1)).maximum(0.1 * length[:, 0, 0])[:, None]
    back = index[:, None] - F.embedding(best, fall.flatten(0, 2)).view(2, 1, 1, 80)
    nearest = back.clamp(0, 79)
    missing = F.embedding(best, missing.flatten(0, 1).flatten(1)).view(2, 1, 80, 80)
    return Ruling(chosen, missing, length, least, nearest.long(), (nearest == back).to(cells.dtype), ruled)


def without_lines(masks: Tensor, thresholds: Tensor, ruling: Ruling) -> Tensor:
    """Masks without the lines that reach from side to side. Strokes that cross a line, or are stronger, stay.

    Args:
        masks: 1 where the contrast exceeds a threshold, (n, CELLS, CELLS).
        thresholds: positive, (n, 1, 1).
        ruling: of the same cells.
    """
    count = masks.size(0)
    values, both = ruling.cells, (ruling.cells > thresholds).to(masks.dtype)  # (2, n, CELLS, CELLS)
    band, level = _lines(both, ruling)
    stays = torch.maximum(
        _crossing(both.flatten(0, 1), band.flatten(0, 1)).view_as(both),
        (values > 1.35 * level[..., None]).to(masks.dtype),
    )
    stays = torch.maximum(stays, 1 - band[..., None])
    rows, columns = (stays.gather(2, ruling.back.expand(2, count, 80, 80)) * ruling.kept).unbind()
    return masks * torch.minimum(rows, columns.transpose(1, 2))


def _lines(masks: Tensor, ruling: Ruling) -> tuple[Tensor, Tensor]:
    """1 for each row with a line, and the line's mean contrast, (2, masks, CELLS) each; `masks`: as ruling.cells."""
    index = torch.arange(80, device=masks.device)
    last = (index >= ruling.length - 2) & (index < ruling.length)
    thick = [torch.stack((masks, ruling.cells * masks))]
    for _ in range(2):  # rows that a line may rise or fall
        thick.append(thickened(thick[-1].flatten(0, 2)).view_as(thick[0]))
    tilted = torch.stack(thick)  # (tilts, 2, 2, masks, CELLS, CELLS)
    covered, strength = tilted.sum(dim=5).unbind(dim=1)  # (tilts, 2, masks, CELLS) each
    ends = torch.maximum(tilted[:, 0], ruling.missing)
    start, end = ends[..., :2].amax(dim=4), (ends * last).amax(dim=4)
    lines = ((covered >= ruling.least) & (start * end > 0)).to(masks.dtype)
    # (tilts, 2, 2, masks, CELLS): whether each row is a line, and its mean contrast
    lines = torch.stack((lines, lines * strength / covered.clamp(min=1)), dim=1)
    found = lines[0]
    for tilt in (1, 2):  # the smallest that fits is used
        found = torch.maximum(found, _widened(lines[tilt] * (1 - _widened(found[0], 4)), 1))
    # a slanted line continues in neighbouring rows, towards one end
    part = torch.maximum(start[0], end[0]) * (covered[0] >= 0.15 * ruling.length[..., 0])
    band, level = torch.maximum(found, part * _widened(found, 2)).unbind()
    return band * (1 - _strokes(band, ruling) * torch.logical_not(ruling.ruled)), level


def _strokes(band: Tensor, ruling: Ruling) -> Tensor:
    """1 for rows of a band (2, masks, CELLS) that is too thick for a line, unless it adjoins the border."""
    index = torch.arange(80, device=band.device, dtype=band.dtype)
    length = ruling.length[:, 0]
    other = (band <= 0) & (index < torch.cat((length[1:], length[:1])))  # rows in the picture, but not in the band
    first, last = torch.where(other, index, 80.0).amin(dim=2), torch.where(other, index, -1.0).amax(dim=2)
    inner = (index > first[..., None]) & (index < last[..., None])
    return runs(band, distances(80).to(band), 0.125 * length + 1) * inner


def distances(side: int) -> Tensor:
    """(side, side): at (i, j), how far cell j of a line is after cell i; very far if it is before."""
    index = torch.arange(side, dtype=torch.float32)
    return torch.where(index >= index[:, None], index - index[:, None], 1e6)


def runs(masks: Tensor, after: Tensor, length: Tensor, share: float = 0.95) -> Tensor:
    """1 in runs along the rows of at least `length` cells, more than a `share` of them filled, 0 elsewhere.

    Args:
        masks: (n, side, side).
        after: distances of cells, (side, side).
        length: () or (n, 1, 1).
    """
    length = length.floor()
    window = following(after, length)
    full = (masks @ window.transpose(-1, -2) > share * length).to(masks.dtype)  # runs start here
    return (full @ window > 0).to(masks.dtype)


def following(after: Tensor, length: Tensor) -> Tensor:
    """(i, j): 1 if cell j of a line is cell i or one of the `length` - 1 cells after it. `after`: j - i."""
    return (after < length).to(after.dtype)


def _crossing(masks: Tensor, band: Tensor) -> Tensor:
    """1 where there is ink both above and below a band of rows, within 8 rows and one column."""
    index = torch.arange(80, device=masks.device, dtype=masks.dtype)
    apart = index[:, None] - index
    passed = band @ (apart <= 0).to(masks.dtype)  # rows of a band down to each row
    between = passed[:, :, None] - passed[:, None]
    # for each row in a band: the rows outside that are separated from it by the band alone
    above = (apart >= 0) & (apart <= 8) & (between >= apart)
    below = (apart <= 0) & (apart >= -8) & (between <= apart + 1)
    sides = torch.cat((above.to(masks.dtype), below.to(masks.dtype)))
    reached = sides @ (masks * (1 - band[:, :, None])).repeat(2, 1, 1)
    framed = F.pad((reached > 0).to(masks.dtype), (1, 1, 0, 0), "replicate")
    near = _highest(framed[..., :-2], framed[..., 1:-1], framed[..., 2:])
    return torch.minimum(near[: masks.size(0)], near[masks.size(0) :])


def _widened(lines: Tensor, by: int) -> Tensor:
    """(…, CELLS) → maximum over the neighbours at most `by` away."""
    return F.max_pool2d(lines.view(1, 1, -1, 80), (1, 2 * by + 1), 1, (0, by)).view_as(lines)


def thickened(masks: Tensor) -> Tensor:
    """(…, n, h, w) → maximum of each cell and its neighbours above and below."""
    framed = F.pad(masks, (0, 0, 1, 1), "replicate")
    return _highest(framed[..., :-2, :], framed[..., 1:-1, :], framed[..., 2:, :])


def around(masks: Tensor) -> Tensor:
    """(…, n, h, w) → maximum of each cell and its 8 neighbours; 20 times as fast as PyTorch's pooling."""
    framed = F.pad(masks, (1, 1, 1, 1), "replicate")
    rows = _highest(framed[..., :-2, :], framed[..., 1:-1, :], framed[..., 2:, :])
    return _highest(rows[..., :-2], rows[..., 1:-1], rows[..., 2:])


def _highest(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(first, second), third)
