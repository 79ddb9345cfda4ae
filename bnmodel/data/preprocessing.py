"""From a picture to a 28×28 digit as in MNIST, in tensor operations that can be exported.

MNIST's digits were scaled to a bounding box of 20×20, antialiased, keeping the aspect ratio, and centred by centre of
mass in 28×28 (LeCun et al. 1998, §III-A). Here `ink.py` finds the ink and `content.py` the drawing; scaling, shifting
and antialiasing are one matrix product from either side: digit = rows · ink · columnsᵀ.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnmodel.data.content import find_content
from bnmodel.data.ink import Ink, InkFinder, window

SIZE = 28  # of the result
BOX = 20.0  # longer side of the ink's bounding box in the result
EDGE = 0.3  # share of the strongest ink above which a pixel counts for the bounding box


class Sketch(nn.Module):
    """canvas: uint8 (H, W, 4) RGBA, sides 8 … 4096 → digit: float32 (28, 28) in [0, 1], ink bright; ink: () in [0, 1].

    `ink` is the share of the canvas that is covered. For a blank canvas, both are 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.find_ink = InkFinder()

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        found = self.find_ink(canvas)
        area, faint, contrast = find_content(found)
        ink = contrast / contrast.max().clamp(min=1e-6)  # (SIDE, SIDE)
        digit = digit_of(canvas, found, area, faint, ink)
        return digit, ink.sum(dim=1).sum() / (found.rows.sum() * found.columns.sum())  # two sums: less rounding


def digit_of(canvas: Tensor, found: Ink, area: Tensor, faint: Tensor, ink: Tensor) -> Tensor:
    """The ink within the mask `area` → (28, 28); from the canvas itself if the bounding box has at most SIDE pixels."""
    top, bottom, left, right = ink_box(ink)  # in working pixels
    margin = found.step + 2
    row = (top * found.step - margin).floor().clamp(min=0)
    column = (left * found.step - margin).floor().clamp(min=0)
    own, rows, columns = window(canvas, found, row, column)
    near = F.embedding((columns / 4).long(), F.embedding((rows / 4).long(), area).t()).t()
    own = own * (own > faint) * near
    fits = (torch.maximum(bottom * found.step - row, right * found.step - column) + margin) <= ink.size(0)
    pixel = torch.where(fits, 1.0, (1 / found.step).clamp(min=1))
    averaged = (torch.logical_not(fits) & (found.step > 1)).to(ink.dtype)
    return reduced(torch.where(fits, own, ink)[None], pixel, averaged)[0]


def reduced(inks: Tensor, pixel: Tensor, averaged: Tensor) -> Tensor:
    """Ink (n, L, L) → digits (n, 28, 28).

    Args:
        inks: one drawing each.
        pixel: size of a canvas pixel in pixels of `inks`, ≥ 1, ().
        averaged: 1 if values are covered shares of pixels, so that a bounding box ends within a pixel; else 0, ().
    """
    down, across = resampling_weights(
        torch.stack((inks.amax(dim=2), inks.amax(dim=1))),
        torch.stack((inks.sum(dim=2), inks.sum(dim=1))),
        pixel,
        averaged,
    )
    digits = down @ inks @ across.transpose(1, 2)  # (n, 28, L) (n, L, L) (n, L, 28)
    # a thin line on a large canvas covers only part of each pixel: scale the maximum to 1
    return digits / digits.amax(dim=2, keepdim=True).amax(dim=1, keepdim=True).clamp(min=1e-6)


def resampling_weights(highest: Tensor, sums: Tensor, pixel: Tensor, averaged: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima and sums of the rows and columns of n drawings (2, n, L) → their weights, (n, 28, L) each."""
    start, end = _extent(highest / highest.amax(dim=2, keepdim=True).clamp(min=1e-6), averaged)  # (2, n)
    scale = (end - start).amax(dim=0) / 20  # pixels per digit pixel
    down, across = _resampling(sums, start, scale, pixel).unbind()
    return down, across


def ink_map(canvas: Tensor) -> Tensor:
    """uint8 (H, W, 4) → float32 (H, W): 1 for the strongest ink of the drawing, 0 outside the drawing."""
    found = InkFinder()(canvas)
    contrast = find_content(found)[2]
    row, column = (
        (torch.arange(side, device=canvas.device) / found.step + 1e-4).floor().long().clamp(max=contrast.size(0) - 1)
        for side in canvas.shape[:2]
    )
    drawn: Tensor = contrast[row][:, column] / contrast.max().clamp(min=1e-6)
    return drawn


def ink_box(ink: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """float32 (L, L) → top, bottom, left, right of the ink, float32 (), ends exclusive; the whole picture if blank."""
    start, end = _extent(torch.stack((ink.amax(dim=1), ink.amax(dim=0))), torch.zeros_like(ink[0, 0]))
    return start[0], end[0], start[1], end[1]


def _extent(profile: Tensor, averaged: Tensor, edge: float = EDGE) -> tuple[Tensor, Tensor]:
    """Profile (…, L) → start of the first value above `edge` and end of the last, float32 (…,); 0 and L if none is.

    With `averaged` 1, these positions lie within a pixel, by the share of it that is covered.
    """
    length = profile.size(-1)
    index = torch.arange(length, device=profile.device, dtype=profile.dtype)
    occupied = profile > edge
    first = torch.where(occupied, index, float(length)).amin(dim=-1)
    last = torch.where(occupied, index, -1.0).amax(dim=-1)
    at_first = (profile * (index == first[..., None])).sum(dim=-1)
    at_last = (profile * (index == last[..., None])).sum(dim=-1)
    some = last >= 0
    start = torch.where(some, first + averaged * (1 - at_first), 0.0)
    return start, torch.where(some, last + 1 - averaged * (1 - at_last), float(length))


def _resampling(profile: Tensor, start: Tensor, scale: Tensor, pixel: Tensor) -> Tensor:
    """Weights (2, n, 28, L) that resample the rows and columns of n drawings.

    Args:
        profile: ink summed along the other axis, (2, n, L).
        start: of the bounding box, (2, n).
        scale: pixels per digit pixel, (n,).
        pixel: size of a canvas pixel in pixels of the drawing, ().

    As in MNIST, the box moves by whole digit pixels, so that the centre of mass is within half a pixel of the middle of
    pixel 14, and a 28×28 digit of MNIST stays unchanged.
    Each digit pixel averages the canvas over its own footprint, `scale` wide. For enlargement the footprint is one
    canvas pixel wide, `pixel`, which is linear interpolation. Outside the canvas is background.
    """
    left = torch.arange(profile.size(2), device=profile.device, dtype=torch.float32)  # pixel j covers [j, j + 1]
    centre = (profile * (left + 0.5)).sum(dim=2) / profile.sum(dim=2).clamp(min=1e-6)
    # 0.001: symmetric drawings are ties, which rounding errors would break differently in each runtime
    shift = torch.floor(28 / 2 + 0.5 - (centre - start) / scale + 0.5 + 0.001)
    index = torch.arange(28, device=profile.device, dtype=torch.float32)
    middle = start[..., None] + (index + 0.5 - shift[..., None]) * scale[:, None]  # (2, n, 28)
    half = torch.maximum(scale, pixel)[:, None, None] / 2
    middle = middle[..., None]
    overlap = torch.minimum(left + 1, middle + half) - torch.maximum(left, middle - half)  # (2, n, 28, L)
    return overlap.clamp(min=0) / (2 * half)


class SketchClassifier(nn.Module):
    """Preprocessing and network as one module.

    canvas: uint8 (H, W, 4) → probabilities (10,), the network's input digit (28, 28), ink ().
    A blank canvas gives every class the same probability.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.sketch = Sketch()
        self.network = network

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        digit, ink = self.sketch(canvas)
        log_probs = self.network(digit[None, None])[0]
        probabilities = torch.where(ink > 0, log_probs.exp(), 0.1)
        return probabilities, digit, ink
