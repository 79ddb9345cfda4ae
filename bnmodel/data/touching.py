"""Touching digits: cuts a piece of ink in several ways, and chooses the one whose parts are read most confidently."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.preprocessing import EDGE, resampling_weights

WINDOWS = (0.14, 0.284, 0.428, 0.572, 0.716, 0.86)  # middles of the windows for the six cuts, in widths of the piece
END = len(WINDOWS) + 1  # index of the right edge; 0 is the left edge, 1 … 6 are the cuts
MIDDLES = [(i, j) for i in (1, 2, 3) for j in (4, 5, 6)]  # the second of three digits contains the piece's middle
SECTIONS = [(0, j) for j in range(1, END + 1)] + [(i, END) for i in range(1, END)] + MIDDLES  # from edge i to edge j
WHOLE = SECTIONS.index((0, END))
TWO = [(SECTIONS.index((0, i)), SECTIONS.index((i, END))) for i in range(1, END)]
THREE = [(SECTIONS.index((0, i)), SECTIONS.index((i, j)), SECTIONS.index((j, END))) for i, j in MIDDLES]
WAYS = [(WHOLE,), *TWO, *THREE]


def edges(pieces: Tensor, boxes: Tensor) -> Tensor:
    """Ink of pieces (n, SIDE, SIDE) and their boxes (n, 4) → columns of left edge, cuts, right edge, (n, END + 1).

    A cut is at the column with the least ink in its window.
    """
    profile = F.avg_pool1d(pieces.sum(dim=1)[:, None], 3, 1, 1)  # (n, 1, SIDE)
    index = torch.arange(320, device=pieces.device, dtype=pieces.dtype)
    left, right = boxes[:, :1], boxes[:, 2:3]
    place = ((index + 0.5 - left) / (right - left).clamp(min=1))[:, None]  # 0 … 1 within the piece
    middles = torch.tensor(WINDOWS, dtype=pieces.dtype, device=pieces.device)[:, None]
    ink = profile + 1000.0 * ((place - middles).abs() > 0.072)  # (n, CUTS, SIDE)
    return torch.cat((left, torch.where(ink <= ink.amin(dim=2, keepdim=True), index, 320.0).amin(dim=2), right), dim=1)


def section_boxes(boxes: Tensor, columns: Tensor) -> Tensor:
    """Boxes of pieces (n, 4) and the columns of their edges → boxes of all sections, (n, SECTIONS, 4)."""
    top, bottom = boxes[:, 1], boxes[:, 3]
    return torch.stack([torch.stack((columns[:, i], top, columns[:, j], bottom), dim=1) for i, j in SECTIONS], dim=1)


def section_digits(pieces: Tensor, columns: Tensor, pixel: Tensor, averaged: Tensor) -> tuple[Tensor, Tensor]:
    """The digits of all sections of pieces (n, SIDE, SIDE), as `preprocessing.reduced` gives them for each section.

    No section is copied: the sums and maxima of its rows come from the strips between edges.

    Returns:
        Digits (n, SECTIONS, 28, 28), and the number of rows with ink in each section, (n, SECTIONS).
    """
    index = torch.arange(320, device=pieces.device, dtype=pieces.dtype)
    of_strip = (index >= columns[:, :-1, None]) & (index < columns[:, 1:, None])  # (n, END, SIDE)
    strips = pieces[:, None] * of_strip[:, :, None]  # (n, END, SIDE, SIDE)
    highest, sums = strips.amax(dim=3), strips.sum(dim=3)  # (n, END, SIDE)
    row_highest = torch.stack([highest[:, i:j].amax(dim=1) for i, j in SECTIONS], dim=1)  # (n, SECTIONS, SIDE)
    row_sums = torch.stack([sums[:, i:j].sum(dim=1) for i, j in SECTIONS], dim=1)
    inside = torch.stack([of_strip[:, i:j].any(dim=1) for i, j in SECTIONS], dim=1).to(pieces.dtype)
    column_highest, column_sums = pieces.amax(dim=1)[:, None] * inside, pieces.sum(dim=1)[:, None] * inside
    highest, sums = torch.stack((row_highest, column_highest)), torch.stack((row_sums, column_sums))
    down, across = resampling_weights(highest.flatten(1, 2), sums.flatten(1, 2), pixel, averaged)
    count = len(SECTIONS)
    across = across.view(-1, count, 28, 320) * inside[:, :, None]
    digits = (down.view(-1, count * 28, 320) @ pieces).view(-1, count, 28, 320) @ across.transpose(2, 3)
    digits = digits / digits.amax(dim=3, keepdim=True).amax(dim=2, keepdim=True).clamp(min=1e-6)
    return digits, (row_highest > EDGE).sum(dim=2)


def best_way(sure: Tensor, boxes: Tensor) -> Tensor:
    """Confidence in each section (n, SECTIONS), its box (n, SECTIONS, 4) → chosen sections, 0 or 1, (n, 3, SECTIONS).

    A piece is cut only if the confidence in its sections is high, and if it is too wide for one digit or the confidence
    in it as one digit is lower.
    """
    aspects = (boxes[:, :, 2] - boxes[:, :, 0]) / (boxes[:, :, 3] - boxes[:, :, 1]).clamp(min=1)
    aspect, whole = aspects[:, WHOLE], sure[:, WHOLE]
    sure = sure * (aspects < 1.2)
    two = torch.stack([torch.minimum(sure[:, a], sure[:, b]) for a, b in TWO], dim=1)
    three = torch.stack([torch.minimum(torch.minimum(sure[:, a], sure[:, b]), sure[:, c]) for a, b, c in THREE], dim=1)
    surest = two.amax(dim=1)
    wide = aspect > 1.3
    may = (aspect > torch.where(whole < 0.5, 0.4, torch.where(whole < 0.9, 0.8, 1.3))) & ((surest > whole) | wide)
    may_two = may & (surest > torch.where(wide, 0.8, 0.99))
    may_three = (aspect > 1.4) & (three.amax(dim=1) > 0.8)
    values = torch.cat(
        (torch.full_like(two[:, :1], 0.01), 2 * two * may_two[:, None], three * may_three[:, None]), dim=1
    )
    chosen = (torch.arange(len(WAYS), device=sure.device) == values.argmax(dim=1, keepdim=True)).to(sure.dtype)
    table = [[[float(n < len(way) and way[n] == k) for k in range(len(SECTIONS))] for n in range(3)] for way in WAYS]
    sections = torch.tensor(table, dtype=sure.dtype, device=sure.device)  # (WAYS, 3, SECTIONS)
    return (chosen @ sections.flatten(1)).view(-1, 3, len(SECTIONS))
