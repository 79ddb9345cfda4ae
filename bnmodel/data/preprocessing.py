"""From a picture to the 28×28 digit that MNIST would have made of it, in tensor operations that can be exported.

MNIST's makers scaled a digit's bounding box to 20×20, keeping its aspect ratio, antialiased, and put its centre of
mass at the centre of 28×28 (LeCun et al. 1998, §III-A). Here `ink` finds what stands out from the paper and `content`
drops what is not the drawing; scaling, shifting and antialiasing are one matrix from the left and one from the right:
digit = rows · ink · columnsᵀ.
"""

import torch
from torch import Tensor, nn

from bnmodel.data.content import enlarge, find_content
from bnmodel.data.ink import Ink, InkFinder, window

SIZE = 28  # of the result
BOX = 20.0  # the longer side of the ink's bounding box in the result
EDGE = 0.3  # a pixel this dark, against the darkest, counts for the bounding box


class Sketch(nn.Module):
    """canvas: uint8 (H, W, 4) RGBA, sides 8 … 4096 → digit: float32 (28, 28) in [0, 1], ink bright; ink: () in [0, 1].

    `ink` is the share of the canvas that is covered, 0 for a blank one (whose digit is all 0).
    """

    def __init__(self) -> None:
        super().__init__()
        self.find_ink = InkFinder()

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        found = self.find_ink(canvas)
        area, faint = find_content(found)
        contrast = found.contrast * enlarge(area) * (found.contrast > faint)
        ink = contrast / contrast.max().clamp(min=1e-6)  # (SIDE, SIDE)
        digit = digit_of(canvas, found, area, faint, ink)
        return digit, ink.sum() / (found.rows.sum() * found.columns.sum())


def digit_of(canvas: Tensor, found: Ink, area: Tensor, faint: Tensor, ink: Tensor) -> Tensor:
    """The ink within an `area` of cells → (28, 28). From the canvas's own pixels where its box has at most SIDE."""
    top, bottom, left, right = ink_box(ink)  # in working pixels
    margin = found.step + 2
    row = (top * found.step - margin).floor().clamp(min=0)
    column = (left * found.step - margin).floor().clamp(min=0)
    own, rows, columns = window(canvas, found, row.long(), column.long())
    own = own * (own > faint) * area[rows // 4][:, columns // 4]
    fits = (torch.maximum(bottom * found.step - row, right * found.step - column) + margin) <= ink.size(0)
    ink = torch.where(fits, own / own.max().clamp(min=1e-6), ink)
    pixel = torch.where(fits, 1.0, (1 / found.step).clamp(min=1))  # a canvas pixel
    top, bottom, left, right = ink_box(ink)
    # a working pixel that is partly covered is where the box ends
    inner = torch.where(fits, 0.0, 1.0) * (found.step > 1)
    top = top + inner * _uncovered(ink.amax(dim=1), top)
    bottom = bottom - inner * _uncovered(ink.amax(dim=1), bottom - 1)
    left = left + inner * _uncovered(ink.amax(dim=0), left)
    right = right - inner * _uncovered(ink.amax(dim=0), right - 1)
    scale = torch.maximum(bottom - top, right - left) / 20  # of these pixels per digit pixel
    down = _resampling(ink.sum(dim=1), top, scale, pixel)
    across = _resampling(ink.sum(dim=0), left, scale, pixel)
    digit = down @ ink @ across.t()  # (28, SIDE) (SIDE, SIDE) (SIDE, 28)
    # a thin line on a large canvas covers only part of each pixel: the brightest one becomes full ink again
    return digit / digit.max().clamp(min=1e-6)


def _uncovered(profile: Tensor, place: Tensor) -> Tensor:
    """1 - profile[place], by a sum: () for (L,) and ()."""
    index = torch.arange(profile.size(0), device=profile.device)
    return 1 - (profile * (index == place)).sum()


def ink_map(canvas: Tensor) -> Tensor:
    """uint8 (H, W, 4) → float32 (H, W): 0 for the paper and what is not the drawing, 1 for the strongest ink."""
    found = InkFinder()(canvas)
    area, faint = find_content(found)
    contrast = found.contrast * enlarge(area) * (found.contrast > faint)
    row, column = (
        (torch.arange(side, device=canvas.device) / found.step + 1e-4).floor().long().clamp(max=contrast.size(0) - 1)
        for side in canvas.shape[:2]
    )
    return contrast[row][:, column] / contrast.max().clamp(min=1e-6)


def ink_box(ink: Tensor, edge: float = EDGE) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """float32 (H, W) → top, bottom, left, right of the ink, float32 (), ends exclusive; all of it where blank."""
    top, bottom = _extent(ink.amax(dim=1) > edge)
    left, right = _extent(ink.amax(dim=0) > edge)
    return top, bottom, left, right


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """bool (L,) → first and one past the last True index, float32 (); (0, L) where none is True."""
    length = occupied.size(0)
    index = torch.arange(length, device=occupied.device)
    first = torch.where(occupied, index, length).min()
    last = torch.where(occupied, index, -1).max()
    empty = last < 0
    return torch.where(empty, 0, first).to(torch.float32), torch.where(empty, length - 1, last).to(torch.float32) + 1


def _resampling(profile: Tensor, start: Tensor, scale: Tensor, pixel: Tensor, size: int = SIZE) -> Tensor:
    """Ink summed along the other axis (L,), start of its box, its pixels per digit pixel → weights (28, L), sums ≤ 1.

    As in MNIST the box moves by whole digit pixels, so that the centre of mass comes to the middle of pixel 14 or
    less than half a pixel from it. A 28×28 digit of MNIST so comes back as it was.
    Each digit pixel averages the canvas over its own footprint, `scale` wide. Enlarging, the footprint stays one canvas
    pixel wide, `pixel`, which is linear interpolation. Outside the canvas is background.
    """
    left = torch.arange(profile.size(0), device=profile.device, dtype=torch.float32)  # pixel j covers [j, j + 1]
    centre = (profile * (left + 0.5)).sum() / profile.sum().clamp(min=1e-6)
    # 0.001: symmetric drawings lie on a tie, which rounding errors of two runtimes would break differently
    shift = torch.floor(size / 2 + 0.5 - (centre - start) / scale + 0.5 + 0.001)
    index = torch.arange(size, device=profile.device, dtype=torch.float32)
    middle = (start + (index + 0.5 - shift) * scale).unsqueeze(1)  # (28, 1)
    width = torch.maximum(scale, pixel)
    overlap = torch.minimum(left + 1, middle + width / 2) - torch.maximum(left, middle - width / 2)  # (28, L)
    return overlap.clamp(min=0) / width


class SketchClassifier(nn.Module):
    """A drawing in, an answer out: the preprocessing and the network as one module.

    canvas: uint8 (H, W, 4) → probabilities (10,), digit (28, 28) as the network saw it, ink ().
    A blank canvas gives every class the same probability.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.sketch = Sketch()
        self.network = network

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        digit, ink = self.sketch(canvas)
        log_probs = self.network(digit[None, None])[0]
        probabilities = torch.where(ink > 0, log_probs.exp(), torch.full_like(log_probs, 0.1))
        return probabilities, digit, ink
