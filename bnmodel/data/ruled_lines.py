"""Removal of lines across the whole picture, such as ruled paper, on masks of cells as in `content.py`."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Sheet(NamedTuple):
    """Size of the picture in cells, float32 () each."""

    height: Tensor
    width: Tensor


def without_lines(masks: Tensor, cells: Tensor, sheet: Sheet) -> Tensor:
    """Masks without the lines that reach from side to side. Strokes that cross a line, or are stronger, stay.

    In a picture more than twice as high as wide, upright lines stay too, since they may be a 1.
    """
    count = masks.size(0)
    both = torch.cat((masks, masks.transpose(1, 2)))  # (2 · masks, CELLS, CELLS): lines along rows, along columns
    values = torch.cat((cells.expand_as(masks), cells.t().expand_as(masks)))
    sides = torch.stack((sheet.width, sheet.height))  # lengths of lines along rows, along columns
    lengths = sides[:, None].expand(2, count).reshape(-1, 1)
    wanted = (torch.arange(2 * count, device=masks.device)[:, None] < count) | (sheet.width >= 0.5 * sheet.height)
    band, level = _lines(both, values, lengths, wanted)
    stays = torch.maximum(_crossing(both, band), (values > 1.35 * level[:, :, None]).to(masks.dtype))
    left = both * torch.maximum(stays, 1 - band[:, :, None])
    return torch.minimum(left[:count], left[count:].transpose(1, 2))


def _lines(masks: Tensor, values: Tensor, lengths: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """1 for each row with a line, and the line's mean contrast, (masks, CELLS) each."""
    index = torch.arange(80, device=masks.device)
    last = ((index >= lengths - 2) & (index < lengths))[:, None]
    thick = [torch.cat((masks, values * masks))]
    for _ in range(2):  # rows that a line may rise or fall
        thick.append(thickened(thick[-1]))
    tilted = torch.stack(thick).unflatten(1, (2, -1))  # (tilts, 2, masks, CELLS, CELLS)
    covered, strength = tilted.sum(dim=4).unbind(dim=1)  # (tilts, masks, CELLS) each
    start, end = tilted[:, 0, :, :, :2].amax(dim=3), (tilted[:, 0] * last).amax(dim=3)
    lines = ((covered >= 0.92 * lengths) & (start * end > 0) & wanted).to(masks.dtype)
    typical = strength / covered.clamp(min=1)
    band, level = lines[0], typical[0] * lines[0]
    for tilt in (1, 2):  # the smallest that fits is used
        turned = lines[tilt] * (1 - _widened(band, 4))
        level = torch.maximum(level, _widened(typical[tilt] * turned, 1))
        band = torch.maximum(band, _widened(turned, 1))
    # a slanted line continues in neighbouring rows, towards one end
    part = torch.maximum(start[0], end[0]) * (covered[0] >= 0.15 * lengths)
    for _ in range(2):
        band, level = torch.maximum(band, part * _widened(band, 1)), torch.maximum(level, part * _widened(level, 1))
    return band, level


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
    """(n, CELLS) → maximum over the neighbours at most `by` away."""
    return F.max_pool2d(lines.view(1, 1, -1, 80), (1, 2 * by + 1), 1, (0, by)).view(-1, 80) if by > 0 else lines


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
