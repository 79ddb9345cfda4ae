"""Images that are not digits, for training by outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606)."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bnmodel.data.augmentation import warp
from bnmodel.data.strokes import SIZE, parse, random_like, segments

# Strokes as in `strokes.parse`, on a grid 4 wide and 6 high. Letters that look like a digit in some handwriting are
# left out: B I O S Z b g i l o q s z (8 1 0 5 2 6 9 1 1 0 9 5 2), J j (1), Λ (a 1 with a long flag), Y y γ (an open
# 4), and β δ ζ ξ.
LETTERS = {
    "A": "06 20 46, 14 34",
    "C": "41 30 10 02 04 16 36 45",
    "D": "00 06 26 44 42 20 00",
    "E": "40 00 06 46, 03 33",
    "F": "40 00 06, 03 33",
    "G": "41 30 10 02 04 16 36 45 43 23",
    "H": "00 06, 40 46, 03 43",
    "K": "00 06, 40 03, 12 46",
    "L": "00 06 46",
    "M": "06 00 23 40 46",
    "N": "06 00 46 40",
    "P": "06 00 30 41 42 33 03",
    "Q": "20 01 05 26 45 41 20, 34 46",
    "R": "06 00 30 41 42 33 03, 23 46",
    "T": "00 40, 20 26",
    "U": "00 04 16 36 44 40",
    "V": "00 26 40",
    "W": "00 16 22 36 40",
    "X": "00 46, 40 06",
    "a": "01 10 30 41 46, 43 13 04 05 16 26 45",
    "d": "40 46, 43 32 12 03 05 16 36 45",
    "e": "03 43 41 30 10 02 04 16 36 45",
    "f": "40 30 21 26, 03 43",
    "h": "00 06, 04 13 33 44 46",
    "k": "00 06, 42 04, 13 46",
    "m": "00 06, 02 10 22 26, 22 30 42 46",
    "n": "00 06, 02 10 30 42 46",
    "p": "00 06, 01 10 30 41 42 33 13 02",
    "r": "00 06, 02 10 30 41",
    "t": "20 25 36 46, 02 42",
    "u": "00 04 16 26 44, 40 46",
    "Γ": "06 00 40",
    "Δ": "20 06 46 20",
    "Θ": "~20 01 05 26 45 41 20, 03 43",
    "Ξ": "00 40, 13 33, 06 46",
    "Π": "06 00 40 46",
    "Σ": "40 00 23 06 46",
    "Φ": "~21 03 25 43 21, 20 26",
    "Ψ": "~00 03 24 43 40, 20 26",
    "Ω": "~06 16 16 04 02 10 30 42 44 36 36 46",
    "α": "~41 24 16 05 02 11 22 46",
    "ε": "~41 20 11 22 22 13 04 26 45",
    "λ": "~00 10 46, 23 06",
    "σ": "~40 40 10 02 04 16 26 34 32 20",
    "ω": "~10 02 05 16 25 23, 23 25 36 45 42 30",
}
SIGNS = ("20 26, 03 43", "02 42, 04 44", "10 16, 30 36, 02 42, 04 44", "20 26, 01 45, 41 05", "03 43, 31 43 35")
LYING = ("03 43", "02 44", "04 42", "00 46")  # lines at angles at which a 1 is not written
SMILEYS = tuple(f"~30 11 03 15 36 55 63 51 30, 22 23, 42 43, {mouth}" for mouth in ("24 35 44", "25 34 45", "25 45"))
SHAPES = (*LETTERS.values(), *SIGNS, *LYING, *LYING, *SMILEYS, *SMILEYS)  # drawn with equal probability each
FRAME = ("00 40 44 04 00",)
_SHAPES, _FRAME = parse(SHAPES), parse(FRAME)


def outliers(digits: Tensor, generator: Generator) -> Tensor:
    """Images that are not digits, shaped like `digits` (N, 1, 28, 28), from which some are made; in [0, 1].

    40% letters, signs, lines and smileys, 25% scribbles, 10% noise, 10% two digits side by side, 5% two digits on
    top of each other at a right angle, 5% dots, 5% frames, half of these around a digit.
    """
    count = len(digits)
    _, uniform = random_like(digits, generator)
    width = 0.6 + uniform(count)
    which = (uniform(count) * len(SHAPES)).long().clamp(max=len(SHAPES) - 1)
    shapes = warp(_SHAPES.draw(which, width, generator), generator)
    others = digits.roll(1, dims=0)
    across = torch.maximum(digits, others.transpose(2, 3).flip(2))
    kinds = (
        shapes,
        scribbles(digits, generator),
        noise(digits, generator),
        side_by_side(digits, others, generator),
        across,
        dots(digits, generator),
        framed(digits, width, generator),
    )
    ends = torch.tensor((0.4, 0.65, 0.75, 0.85, 0.9, 0.95), device=digits.device)
    kind = torch.bucketize(uniform(count), ends)  # (N,)
    return torch.stack(kinds)[kind, torch.arange(count, device=digits.device)]


def scribbles(like: Tensor, generator: Generator) -> Tensor:
    """Zigzags of 4 to 7 lines, one per image of `like`."""
    _, uniform = random_like(like, generator)
    points = 14 + (uniform(8, len(like), 2) - 0.5) * 20
    width, length = 0.6 + uniform(len(like)), 4 + (uniform(len(like)) * 4).long()
    lines = segments(points[:-1].flatten(0, 1), points[1:].flatten(0, 1), width.repeat(7)).view(7, -1, SIZE, SIZE)
    drawn = torch.arange(7, device=like.device).view(-1, 1) < length  # (7, N)
    return (lines * drawn[:, :, None, None]).amax(dim=0).unsqueeze(1)


def noise(like: Tensor, generator: Generator) -> Tensor:
    """Random pixels, of which a random share is kept."""
    normal, uniform = random_like(like, generator)
    kept = uniform(*like.shape) < uniform(len(like), 1, 1, 1)
    return (0.5 + 0.5 * normal(*like.shape)).clamp(0, 1) * kept


def side_by_side(left: Tensor, right: Tensor, generator: Generator) -> Tensor:
    """Two digits in the box of one: apart, touching or overlapping a little."""
    _, uniform = random_like(left, generator)
    distance = 4 + 2 * uniform(len(left))  # from the middle to each centre, in pixels
    return torch.maximum(_reduced(left, 0.68, -distance), _reduced(right, 0.68, distance))


def dots(like: Tensor, generator: Generator) -> Tensor:
    """One large dot, or two or three small ones."""
    normal, uniform = random_like(like, generator)
    number = 1 + (uniform(len(like)) * 3).long()
    radius = torch.where(number == 1, 4 + 7 * uniform(len(like)), 1.5 + 2.5 * uniform(len(like)))
    horizontal = uniform(len(like), 1) < 0.5
    index = torch.arange(3, device=like.device).view(-1, 1)
    along = 8 * (index - (number - 1) / 2)  # pixels from the middle, (3, N)
    centre = along.unsqueeze(2) * torch.cat((horizontal, ~horizontal), dim=1)
    centre = (SIZE / 2 + centre + 0.5 * normal(3, len(like), 2)).flatten(0, 1)
    drawn = segments(centre, centre, radius.repeat(3)).view(3, -1, SIZE, SIZE) * (index < number)[:, :, None, None]
    return drawn.amax(dim=0).unsqueeze(1)


def framed(digits: Tensor, width: Tensor, generator: Generator) -> Tensor:
    """Rectangles, half of them around a small digit."""
    _, uniform = random_like(digits, generator)
    frame = _FRAME.draw(torch.zeros(len(digits), dtype=torch.long, device=digits.device), width, generator)
    inside = _reduced(digits, 0.6, torch.zeros_like(width)) * (uniform(len(digits), 1, 1, 1) < 0.5)
    return torch.maximum(frame, inside)


def _reduced(images: Tensor, factor: float, shift: Tensor) -> Tensor:
    """Images (N, 1, 28, 28) scaled by `factor` < 1, with their centre `shift` (N,) pixels right of the middle."""
    affine = torch.zeros(len(images), 2, 3, device=images.device)
    affine[:, 0, 0], affine[:, 1, 1] = 1 / factor, 1 / factor
    affine[:, 0, 2] = -shift * 2 / SIZE / factor
    return F.grid_sample(images, F.affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
