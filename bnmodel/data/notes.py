"""A note, label, plate or plotted image on another background: only the ink on it counts.

Works on 80 × 80 pixels, columns first; `valid` is 1 on the picture and 0 outside.
"""

import torch
from torch import Tensor

from bnmodel.data.colours import biweight
from bnmodel.data.components import box_around
from bnmodel.data.ruled_lines import around


def middle_of(valid: Tensor) -> Tensor:
    """Weights of the pixels by their closeness to the middle of the picture, shaped as `valid` (1, 80, 80)."""
    return valid * _closeness(valid[0, :, :1])[:, None] * _closeness(valid[0, :1])


def find_notes(
    pixels: Tensor, valid: Tensor, weights: Tensor, outer: Tensor, inner: Tensor, flat: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Notes of n colours `inner` on a background with the common colour `outer`.

    There is one if a solid region of its colour, about as large as its bounding box, encloses a third colour, the ink.
    Thick ink on plain paper encloses nothing but paper and, at its edges, mixtures of both. In an upright rectangle
    with an even margin, such as a plotted image, or in several side by side, the ink may have any colour.

    Args:
        pixels: (4, 80, 80).
        valid: (1, 80, 80).
        weights: of the pixels that each region has to fill, (n, 80, 80).
        outer: common colour of the picture, (4, 1, 1).
        inner: other common colours, (n, 4, 1, 1).
        flat: whether the background has a single colour, (); the margin of a note must then be even.

    Returns:
        Whether each note exists, (n,); whether its margin is even, (n,); its region, (n, 80, 80).
    """
    across = inner - outer
    rest = pixels - outer
    share = (rest * across).sum(dim=1, keepdim=True) / (across * across).sum(dim=1, keepdim=True).clamp(min=1e-6)
    # if few pixels have the colour `outer`, it is itself a mixture of paper and ink, and neither is a third colour
    frequent = ((biweight(rest, 0.09) * valid > 0).sum() > 0.1 * valid.sum()).to(pixels.dtype)
    third = (rest - torch.maximum(share, frequent - 1) * across).abs().amax(dim=1) > 0.12
    alike = ((biweight(pixels - inner, 0.09) * valid)[:, 0] > 0).to(pixels.dtype)
    index = torch.arange(80, device=pixels.device)
    beside = ((index[:, None] - index).abs() <= 1).to(pixels.dtype)
    thick = alike * (beside @ alike @ beside >= 5)  # without lines
    hull = _hull(alike) * _box(alike * around(thick))
    region = around(1 - around(1 - hull))
    weight = hull * weights
    frame = _box(region)
    # inside the edge of the region, two pixels wide; inside the edge of its box, one pixel wide
    margin, rim = region * around(around(1 - region)), frame * around(1 - frame)
    ink = hull * frame * (1 - alike)
    areas = torch.stack(
        (weight * alike, weight, region, box_around(region), hull * third, hull, ink, _box(ink), margin, margin * alike,
         rim, rim * alike)
    ).sum(dim=(2, 3))  # fmt: skip
    filled, most, size, box, coloured, inside, inked, ink_box, margins, even_margins, rims, even_rims = areas.unbind()
    apart = across.abs().amax(dim=(1, 2, 3)) > 0.12
    # rectangular holes are those of a thick digit of straight lines, rather than ink
    upright = (even_rims > 0.8 * rims) & (inked < 0.9 * ink_box)
    compact = flat & (size > 0.76 * box) & (even_margins > 0.95 * margins)
    in_third = (coloured > 0.012 * inside) & (compact | torch.logical_not(flat))
    written = in_third | (upright & (inked > 0.012 * inside))
    solid = upright | ((size > 0.65 * box) & (filled > 0.65 * most))
    found = solid & (filled > 0.55 * most) & (size > 0.02 * valid.sum()) & apart & written
    return found, upright | compact, torch.where(upright[:, None, None], frame, region)


def note_area(paper: Tensor, region: Tensor, valid: Tensor) -> Tensor:
    """The inside of the note, (80, 80); the whole picture if the note fills more than a quarter of the picture's rim.

    `paper`: 1 for pixels of the note's paper, (80, 80); `region`: as found by `find_note`; `valid`: (80, 80).
    """
    paper = paper[None]
    inside = _hull(1 - around(1 - paper))  # without the note's edge and small parts of the background
    small = _hull(paper * around(region[None]))  # of a small note, the ink leaves nothing but the edge
    inside = torch.maximum(inside, 1 - around(1 - small))[0]
    index = torch.arange(80, device=paper.device)
    width, height = valid[:, 0].sum(), valid[0].sum()
    at_rim = 1 - ((index >= 1) & (index < width - 2)).to(paper.dtype)[:, None] * ((index >= 1) & (index < height - 2))
    whole = (inside * at_rim).sum() > 0.5 * (width + height)
    return torch.maximum(inside, whole.to(paper.dtype))


def _closeness(line: Tensor) -> Tensor:
    """1 in the middle of the positive part of `line`, of 80 values, decreasing to 0 at a quarter of its length."""
    index = torch.arange(80, device=line.device) + 0.5
    away = (index / line.sum() - 0.5) / 0.25
    inside = (1 - away * away).clamp(min=0)
    return inside * inside


def _box(region: Tensor) -> Tensor:
    """1 where both the row and the column contain some of `region` (n, 80, 80)."""
    return region.amax(dim=2, keepdim=True) * region.amax(dim=1, keepdim=True)


def _hull(region: Tensor) -> Tensor:
    """1 where there is some of `region` (n, 80, 80) in all four directions, or at the place itself."""
    index = torch.arange(80, device=region.device)
    until = (index[:, None] <= index).to(region.dtype)
    along = torch.minimum(region @ until, region @ until.t())
    across = torch.minimum(until @ region, until.t() @ region)
    return (torch.minimum(along, across) > 0).to(region.dtype)
