"""Images that are not digits, for outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606).

Letters consist of a few strokes. Letters that look like a digit in some handwriting are left out: B I O S Z b g i l o q
s z (8 1 0 5 2 6 9 1 1 0 9 5 2), J j (1) and Y y (an open 4). Lines at angles that no 1 has are added.
"""

from itertools import pairwise

import torch
from torch import Generator, Tensor

from bnmodel.data.augmentation import SIZE, random_like, segments, warp

# Strokes as points xy on a grid of width 4 and height 6, y downwards
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
}
LYING = ("03 43", "02 44", "04 42", "00 46")
SHAPES = (*LETTERS.values(), *LYING, *LYING)  # equally likely, lying lines twice as likely
SLIP = 0.3  # standard deviation of every point, in grid units
GRID = torch.tensor((4.0, 6.0))
SMALLEST = torch.tensor((11.0, 15.0))  # width and height in pixels of a letter that fills the grid
LARGEST = torch.tensor((19.0, 20.0))


def outliers(digits: Tensor, generator: Generator) -> Tensor:
    """Scribbles (40 %), letters (40 %), pairs of crossing `digits` (10 %) and noise (10 %), (N, 1, 28, 28)."""
    count = len(digits)
    normal, uniform = random_like(digits, generator)
    points = 14 + (uniform(8, count, 2) - 0.5) * 20  # of a zigzag
    width = 0.6 + uniform(count)
    length = 4 + (uniform(count) * 4).long()  # strokes, 4 … 7
    scribble = torch.zeros(count, SIZE, SIZE, device=digits.device)
    for number in range(7):
        stroke = segments(points[number], points[number + 1], width) * (number < length).view(-1, 1, 1)
        scribble = torch.maximum(scribble, stroke)
    across = torch.maximum(digits, digits.roll(1, dims=0).transpose(2, 3).flip(2))[:, 0]
    noise = (0.5 + 0.5 * normal(count, SIZE, SIZE)).clamp(0, 1) * (uniform(count, 1, 1) < uniform(count, SIZE, SIZE))
    start, end = letters(count, generator)
    strokes = segments(start.flatten(0, 1), end.flatten(0, 1), width.repeat_interleave(start.shape[1]))
    letter = warp(strokes.view(count, -1, SIZE, SIZE).amax(dim=1, keepdim=True), generator)[:, 0]
    kind = uniform(count, 1, 1)
    others = torch.where(kind < 0.8, letter, torch.where(kind < 0.9, across, noise))
    return torch.where(kind < 0.4, scribble, others).unsqueeze(1)


def letters(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random letters as lines: start and end points, each (count, lines, 2), x and y in pixels.

    Their centre of mass is at (14, 14), as that of a digit. Letters with fewer lines are padded with points.
    """
    device = generator.device
    which = torch.randint(len(_START), (count,), generator=generator, device=device)
    slips = SLIP * torch.randn(count, _START.shape[1] + 1, 2, generator=generator, device=device)
    share = torch.rand(count, 1, 2, generator=generator, device=device)
    grid, smallest, largest, start, end = (table.to(device) for table in (GRID, SMALLEST, LARGEST, _START, _END))
    scale = (smallest + (largest - smallest) * share) / grid
    start, end = (start[which] + slips[:, :-1]) * scale, (end[which] + slips[:, 1:]) * scale
    length = (end - start).norm(dim=2, keepdim=True)
    centre = ((start + end) / 2 * length).sum(1, keepdim=True) / length.sum(1, keepdim=True)
    return start + (14 - centre), end + (14 - centre)


def _lines() -> tuple[Tensor, Tensor]:
    """SHAPES as lines: start and end points, each (shapes, lines, 2), in grid units."""
    drawn = []
    for strokes in SHAPES:
        points = [[(int(point[0]), int(point[1])) for point in stroke.split()] for stroke in strokes.split(",")]
        drawn.append([line for stroke in points for line in pairwise(stroke)])
    most = max(map(len, drawn))
    table = torch.tensor([lines + [(lines[-1][1],) * 2] * (most - len(lines)) for lines in drawn])
    return table[:, :, 0].float(), table[:, :, 1].float()


_START, _END = _lines()
