"""The ink of a picture: its contrast against the paper, even under uneven light.

A canvas of any size is reduced to SIDE × SIDE working pixels; a small one is enlarged by an integer factor. From there
on all shapes are fixed, so one implementation can be exported to every format. Functions of this package contain sizes
as literals, since TorchScript cannot read constants of a module.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnmodel.data.colours import biweight, common_colours, paper_colours
from bnmodel.data.notes import find_notes, middle_of, note_area
from bnmodel.data.ruled_lines import around
from bnmodel.data.shadows import light_at, light_on

SIDE = 320  # working pixels; the longer side of a picture fills more than half of them
COARSE = 40  # cells per side in which the paper is estimated
NOISE = 0.08  # contrast below this is compression and paper, not ink
WIDE = 7.0  # standard deviation of the wider neighbourhood in which the paper is averaged, in coarse cells


class Pixels(NamedTuple):
    """A canvas as working pixels, columns first. Channels in the middle make reductions over them fast."""

    mean: Tensor  # (SIDE, 4, SIDE), mean red, green, blue and alpha of its canvas pixels, in [0, 1]
    spread: Tensor  # (SIDE, SIDE), largest difference between its canvas pixels, which keeps lines of one pixel visible
    rows: Tensor  # (SIDE,), 1 on the canvas, 0 outside
    columns: Tensor  # (SIDE,), likewise
    step: Tensor  # (), canvas pixels per working pixel


class Ink(NamedTuple):
    contrast: Tensor  # (SIDE, SIDE), against the paper; 0 where it is not above the noise
    rows: Tensor  # (SIDE,), 1 on the canvas, 0 outside
    columns: Tensor  # (SIDE,), likewise
    step: Tensor  # (), canvas pixels per working pixel
    paper: Tensor  # (COARSE, 4, COARSE), columns first
    noise: Tensor  # (), contrast up to which a canvas pixel is paper
    unevenness: Tensor  # (), largest difference in brightness within the paper
    area: Tensor  # (SIDE / 4, SIDE / 4), 1 where ink counts: everywhere, or on a note only
    shadow: Tensor  # (), whether there is a shadow with a sharp edge, 1 or 0
    limits: Tensor  # (SIDE / 4, 2, SIDE / 4), lowest and highest brightness of the paper near each pixel, columns first
    brightness: Tensor  # (), its mean


class InkFinder(nn.Module):
    """canvas: uint8 (H, W, 4) RGBA → Ink.

    The paper is modelled as a smooth surface: a local mean of the pixels close to it, estimated iteratively, starting
    from the common colour of the picture (M-estimation with Tukey's biweight: Beaton & Tukey, Technometrics 16, 1974).
    Contrast is the largest difference from it over premultiplied red, green, blue and alpha, so that black on white,
    white on black, red on green and any colour on transparent are treated alike.
    """

    wide: Tensor
    apart: Tensor
    enlarging: Tensor
    doubling: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.noise = NOISE
        self.register_buffer("wide", _gaussian(COARSE, WIDE), persistent=False)
        index = torch.arange(COARSE, dtype=torch.float32)
        self.register_buffer("apart", index[:, None] - index, persistent=False)
        self.register_buffer("enlarging", _interpolation(SIDE, COARSE), persistent=False)
        self.register_buffer("doubling", _interpolation(SIDE // 2, COARSE), persistent=False)

    def forward(self, canvas: Tensor) -> Ink:
        pixels = reduce_canvas(canvas)
        valid = pixels.columns[:, None] * pixels.rows  # (SIDE, SIDE)
        few = pixels.mean[::4].view(80, 4, 80, 4).mean(dim=3).transpose(0, 1)
        shadow, limits, brightness = light_on(few, valid[::4, ::4], pixels.step)
        paper = enlarged(limits.view(80, 160)).view(320, 2, 320)  # lowest and highest brightness nearby
        light = light_at(pixels.mean, paper, brightness)
        mean = _premultiplied(pixels.mean, light)
        kernels = torch.stack((self.neighbourhood(pixels.step), self.wide))
        cells, weight, area, unevenness = self.paper(mean[::2, :, ::2], valid[::2, ::2], kernels)
        contrast = (mean - surface(self.enlarging, cells, self.enlarging)).abs().amax(dim=1) * valid
        total = weight.sum().clamp(min=1)
        noise = (contrast[::2, ::2] * weight).sum() / total
        spread = (pixels.spread - (paper[:, 1] - paper[:, 0])).clamp(min=0) / light
        roughness = (spread[::2, ::2] * weight).sum() / (2 * total)  # how far extreme pixels are from the paper
        limit = torch.maximum((2.5 * torch.maximum(noise, roughness)).clamp(min=self.noise), 0.15 * shadow)
        inked = (torch.maximum(contrast, spread - roughness) > limit) & (contrast > 4 * noise)
        ink = (contrast * inked).t()
        sides = (pixels.rows, pixels.columns, pixels.step)
        return Ink(ink, *sides, cells, limit, unevenness, area.t(), shadow, limits, brightness)

    def paper(self, mean: Tensor, valid: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Estimate the paper.

        If at least half of the pixels have the same colour, as on a screen, the paper is exactly that colour; a quarter
        is enough if few others are close to it and the ink is strong. Otherwise it may be a note on another background.

        Args:
            mean: every second working pixel, (SIDE / 2, 4, SIDE / 2).
            valid: 1 on the canvas, (SIDE / 2, SIDE / 2).
            kernels: weights of the narrow and of the wide neighbourhood, (2, COARSE, COARSE).

        Returns:
            The paper (COARSE, 4, COARSE), the weight of each pixel as paper (SIDE / 2, SIDE / 2), the part of the
            picture in which ink counts (SIDE / 4, SIDE / 4), the unevenness ().
        """
        present = _cells(valid[:, None])  # (COARSE, 1, COARSE)
        cells = _cells(mean * valid[:, None]) / present.clamp(min=1e-6)
        some, shown = mean[::2, :, ::2].transpose(0, 1), valid[None, ::2, ::2]
        weights = torch.cat((middle_of(shown), shown))
        inner, colour, strong = paper_colours(some, weights[:1], shown)
        rest = (mean - colour[:, 0]).abs().amax(dim=1)
        alike = (rest < 0.5 / 255).to(mean.dtype) * valid
        near = ((rest < 0.1).to(mean.dtype) * valid).sum()
        share = alike.sum() / valid.sum()
        flat = (share >= 0.5) | (strong & (share >= 0.25) & (near < 1.7 * alike.sum()))
        other = common_colours(some, (shown * (biweight(some - colour, 0.2) <= 0))[None])[0]
        notes, even, regions = find_notes(some, shown, weights, colour, torch.stack((inner, other)), flat)
        in_middle, anywhere = notes.unbind()
        inner, region = torch.where(in_middle, inner, other), torch.where(in_middle, regions[0], regions[1])
        even_margin = (in_middle & even[0]) | (torch.logical_not(in_middle) & even[1])
        note = in_middle | anywhere
        flat = flat & torch.logical_not(note)
        paper = torch.where(note, inner[:, 0], colour[:, 0]).expand_as(cells)
        for scale in (0.3, 0.2, 0.15, 0.12, 0.10, 0.08):
            rest = cells - paper
            weight = biweight(rest, scale, 1) * present
            paper = paper + smoothed(rest * weight, weight, kernels)
        # cells mix paper with ink at edges, pixels do not
        rest = mean - surface(self.doubling, paper, self.doubling)
        weight = biweight(rest, 0.09, 1) * valid[:, None]
        weights, rests = _cells(weight), _cells(rest * weight)
        for _ in range(3):
            correction = smoothed(rests, weights, kernels)
            paper = paper + correction
            rests = rests - correction * weights
        weight = weight[:, 0]
        inside = note_area((weight[::2, ::2] > 0.3).to(mean.dtype), region, shown[0])
        inside = torch.where(even_margin, 1 - around(1 - region[None])[0], inside)
        paper = torch.where(flat, colour[:, 0], paper)
        light = paper[:, :3].mean(dim=1) * (present[:, 0] > 0.5)
        unevenness = light.max() - (light + (present[:, 0] <= 0.5)).min()
        return paper, torch.where(flat, alike, weight), torch.where(note, inside, 1.0), unevenness

    def neighbourhood(self, step: Tensor) -> Tensor:
        """Weights of the narrow neighbourhood of each cell, (COARSE, COARSE); `step`: canvas pixels per working pixel.

        Its standard deviation is two cells, but at least 2.5 canvas pixels, since in a small
        picture a blurred stroke is that wide, and the estimated paper would follow it.
        """
        ratio = self.apart / (2.5 / (8 * step)).clamp(2, 7)
        return torch.exp(-0.5 * ratio * ratio)


def smoothed(weighted: Tensor, weight: Tensor, kernels: Tensor) -> Tensor:
    """Σ w·x and Σ w of each cell → the local weighted mean of x: over the narrow neighbourhood, plus 0.3 cells' worth
    of the mean over the wide one, which decides where the narrow one contains no paper.

    Args:
        weighted, weight: (COARSE, 4, COARSE) and (COARSE, 1, COARSE).
        kernels: of the narrow and of the wide neighbourhood, (2, COARSE, COARSE).
    """
    columns = kernels.view(80, 40) @ torch.cat((weighted, weight), dim=1).view(40, 200)
    near, far = (columns.view(2, 200, 40) @ kernels).view(2, 40, 5, 40).unbind()
    wide = far[:, :4] / far[:, 4:].clamp(min=1e-9)
    return (near[:, :4] + 0.3 * wide) / (near[:, 4:] + 0.3)


def window(canvas: Tensor, ink: Ink, top: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SIDE × SIDE canvas pixels from row `top` and column `left`, integers as float tensors ().

    Returns:
        Their contrast (SIDE, SIDE), 0 outside the canvas and where it is not above the noise; the positions of their
        rows (SIDE,) and columns (SIDE,) in working pixels.
    """
    index = torch.arange(320, device=canvas.device, dtype=torch.float32)
    rows, columns = top + index, left + index
    across = F.embedding(rows.clamp(max=canvas.shape[0] - 1).long(), canvas.flatten(1))  # (SIDE, 4W)
    across = across.t().reshape(canvas.shape[1], 1280)  # (W, 4 · SIDE)
    values = F.embedding(columns.clamp(max=canvas.shape[1] - 1).long(), across).to(torch.float32)
    pixels = values.view(320, 4, 320) / 255
    place_row, place_column = (rows + 0.5) / ink.step, (columns + 0.5) / ink.step  # in working pixels
    paper = surface(_between(place_column), ink.paper, _between(place_row))
    pixel = torch.arange(80, device=canvas.device, dtype=torch.float32)[:, None]
    chosen = (place_row.clamp(max=319) / 4).floor() == pixel  # (SIDE / 4, SIDE)
    limits = (ink.limits.view(160, 80) @ chosen.to(torch.float32)).view(80, 640)
    limits = F.embedding((place_column.clamp(max=319) / 4).long(), limits).view(320, 2, 320)
    pixels = _premultiplied(pixels, light_at(pixels, limits, ink.brightness))
    contrast = (pixels - paper).abs().amax(dim=1).t()
    contrast = contrast * (rows < canvas.shape[0]).to(contrast.dtype)[:, None] * (columns < canvas.shape[1])
    return contrast * (contrast > ink.noise), place_row.clamp(max=319), place_column.clamp(max=319)


def surface(columns: Tensor, cells: Tensor, rows: Tensor) -> Tensor:
    """Cells (COARSE, 4, COARSE), weights of each column and row (n, COARSE) → interpolated, (columns, 4, rows)."""
    upright = columns @ cells.flatten(1)  # (columns, 4 · COARSE)
    return (upright.view(-1, 40) @ rows.t()).view(columns.size(0), 4, rows.size(0))


def enlarged(cells: Tensor, side: int = 320) -> Tensor:
    """(h, w) → (side, w · side / h): each value several times in both directions."""
    times = side // cells.size(0)
    if times == 1:
        return cells
    wide = torch.stack([cells] * times, dim=2).flatten(1)  # in ONNX Runtime ten times as fast as expanding
    return torch.stack([wide] * times, dim=1).flatten(0, 1)


def _between(place: Tensor) -> Tensor:
    """Positions in working pixels (L,) → weights of linear interpolation between coarse cells, (L, COARSE)."""
    cell = (place / 8 - 0.5).clamp(0, 39)
    return (1 - (cell[:, None] - torch.arange(40, device=place.device)).abs()).clamp(min=0)


def reduce_canvas(canvas: Tensor) -> Pixels:
    """uint8 (H, W, 4) → Pixels. A working pixel covers `factor` × `factor` canvas pixels.

    A canvas of less than SIDE pixels is enlarged by an integer instead.
    """
    height, width = canvas.shape[0], canvas.shape[1]
    if torch.jit.is_scripting():
        longest = max(height, width)
        factor = (longest + 319) // 320
        enlargement = max(1, 320 // longest)
    else:
        longest = torch.sym_max(height, width)  # type: ignore[assignment]
        factor = (longest + 319) // 320
        enlargement = torch.sym_max(1, 320 // longest)  # type: ignore[assignment]
        if not isinstance(factor, int):
            # as a value rather than a size, since torch.export makes a size of 1 a constant
            factor = torch.tensor(factor).item()
            torch._check(factor >= 1)
    # in floating point: runtimes differ in integer division and clamping
    start = torch.arange(320, device=canvas.device, dtype=torch.float32) * factor
    place = torch.arange(320 * factor, device=canvas.device).to(torch.float32) + 0.5
    index = (place / enlargement).floor().view(320, factor)  # (SIDE, factor)
    # embedding takes rows by a two-dimensional index without a reshape to a dynamic size
    rows = F.embedding(index.clamp(max=height - 1).long(), canvas.flatten(1))  # (SIDE, factor, 4W)
    columns = index.clamp(max=width - 1).long()
    values = rows.to(torch.float32)
    total = _rest(values.sum(dim=1), width, columns).sum(dim=1)  # (SIDE, 4 · SIDE)
    low = _rest(values.amin(dim=1).to(torch.uint8), width, columns).to(torch.float32).amin(dim=1)
    high = _rest(values.amax(dim=1).to(torch.uint8), width, columns).to(torch.float32).amax(dim=1)
    pixels, spread = total.view(320, 4, 320) / (255 * factor * factor), (high - low).view(320, 4, 320)
    return Pixels(
        pixels,
        torch.maximum(spread[:, :3].amax(dim=1) * pixels[:, 3], spread[:, 3]) / 255,
        (start < height * enlargement).to(torch.float32),
        (start < width * enlargement).to(torch.float32),
        start[1] / enlargement,
    )


def _rest(reduced: Tensor, width: int, columns: Tensor) -> Tensor:
    """(SIDE, 4W) → (SIDE of columns, factor, 4 · SIDE of rows), still to be reduced along its second dimension."""
    return F.embedding(columns, reduced.t().reshape(width, 1280))


def _premultiplied(pixels: Tensor, light: Tensor) -> Tensor:
    """(n, 4, m) → the colours under even light, times alpha, and alpha. `light`: (n, m)."""
    return torch.cat((pixels[:, :3] * (pixels[:, 3] / light)[:, None], pixels[:, 3:]), dim=1)


def _cells(pixels: Tensor) -> Tensor:
    """(SIDE / 2, C, SIDE / 2) → means of cells, (COARSE, C, COARSE)."""
    return pixels.reshape(40, 4, -1, 160).mean(dim=1).view(40, -1, 40, 4).mean(dim=3)


def _gaussian(size: int, deviation: float) -> Tensor:
    index = torch.arange(size, dtype=torch.float32)
    return torch.exp(-0.5 * ((index[:, None] - index) / deviation) ** 2)


def _interpolation(size: int, cells: int) -> Tensor:
    """Weights of linear interpolation between the centres of `cells` cells, (size, cells)."""
    place = ((torch.arange(size) + 0.5) * cells / size - 0.5).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0)
