"""From a drawing to the 28×28 digit that MNIST would have made of it, in tensor operations that can be exported.

MNIST's makers scaled a digit's bounding box to 20×20, keeping its aspect ratio, antialiased, and put its centre of
mass at the centre of 28×28 (LeCun et al. 1998, §III-A). Here the background is read off the border, so that any
polarity, colour or transparency is ink; and scaling, shifting and antialiasing are one matrix from the left and one
from the right: digit = rows · ink · columnsᵀ.
"""

import torch
from torch import Tensor, nn

SIZE = 28  # of the result
BOX = 20.0  # the longer side of the ink's bounding box in the result
NOISE = 0.08  # contrast against the background below this is compression and paper, not ink
EDGE = 0.3  # a pixel this dark, against the darkest, counts for the bounding box


class Sketch(nn.Module):
    """canvas: uint8 (H, W, 4) RGBA, sides 8 … 4096 → digit: float32 (28, 28) in [0, 1], ink bright; ink: () in [0, 1].

    `ink` is the share of the canvas that is covered, 0 for a blank one (whose digit is all 0).
    """

    def __init__(self) -> None:
        super().__init__()
        self.box = BOX

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        ink = ink_map(canvas)  # (H, W)
        top, bottom, left, right = ink_box(ink)
        scale = torch.maximum(bottom - top, right - left) / self.box  # canvas pixels a digit pixel
        rows = _resampling(ink.sum(dim=1), top, scale)  # (28, H)
        columns = _resampling(ink.sum(dim=0), left, scale)  # (28, W)
        digit = rows @ ink @ columns.t()  # (28, H) (H, W) (W, 28)
        # a thin line on a large canvas covers only part of each pixel: the brightest one becomes full ink again
        digit = digit / digit.max().clamp(min=1e-6)
        return digit, ink.mean(dim=1).mean()  # in two steps: a sum of 16 million would round


def ink_map(canvas: Tensor, noise: float = NOISE) -> Tensor:
    """uint8 (H, W, 4) → float32 (H, W): 0 for the background, 1 for the strongest ink; all 0 where nothing stands out.

    Contrast is the largest difference from the background over red, green, blue and alpha, premultiplied, so that
    black on white, white on black, red on green and anything on transparent are alike.
    """
    alpha = canvas[:, :, 3].to(torch.float32) / 255  # (H, W)
    border = torch.cat((canvas[0], canvas[-1], canvas[:, 0], canvas[:, -1])).to(torch.float32) / 255  # (2W + 2H, 4)
    border = torch.cat((border[:, :3] * border[:, 3:], border[:, 3:]), dim=1)
    background = border.sort(dim=0).values[border.size(0) // 2]  # (4,), the median: strokes may touch the border
    contrast = (alpha - background[3]).abs()  # (H, W)
    for channel in range(3):  # one at a time, since a canvas may have 16 million pixels
        plane = canvas[:, :, channel].to(torch.float32) / 255 * alpha
        contrast = torch.maximum(contrast, (plane - background[channel]).abs())
    strongest = contrast.max()
    return contrast * (contrast > noise) / strongest.clamp(min=noise)


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


def _resampling(profile: Tensor, start: Tensor, scale: Tensor, size: int = SIZE) -> Tensor:
    """Ink summed along the other axis (L,), start of its box, canvas pixels a digit pixel → weights (28, L), sums ≤ 1.

    As in MNIST the box moves by whole digit pixels, so that the centre of mass comes to the middle of pixel 14 or
    less than half a pixel from it. A 28×28 digit of MNIST so comes back as it was.
    Each digit pixel averages the canvas over its own footprint, `scale` wide. Enlarging, the footprint stays one canvas
    pixel wide, which is linear interpolation. Outside the canvas is background.
    """
    left = torch.arange(profile.size(0), device=profile.device, dtype=torch.float32)  # pixel j covers [j, j + 1]
    centre = (profile * (left + 0.5)).sum() / profile.sum().clamp(min=1e-6)
    # 0.001: symmetric drawings lie on a tie, which rounding errors of two runtimes would break differently
    shift = torch.floor(size / 2 + 0.5 - (centre - start) / scale + 0.5 + 0.001)
    index = torch.arange(size, device=profile.device, dtype=torch.float32)
    middle = (start + (index + 0.5 - shift) * scale).unsqueeze(1)  # (28, 1)
    width = scale.clamp(min=1.0)
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
