"""Shadows with a sharp edge, such as a hand's or a phone's: the darkened paper is not read as ink.

A morphological closing removes dark strokes from a picture, and leaves shadows with straight edges as they are
(Serra, Image Analysis and Mathematical Morphology, 1982). Works on 80 × 80 pixels, columns first; `valid` is 1 on the
picture and 0 outside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.data.ruled_lines import around


def light_on(pixels: Tensor, valid: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The light that falls on the paper.

    Args:
        pixels: (4, 80, 80).
        valid: (80, 80).
        step: canvas pixels per working pixel, (). Shadows are not searched for in pictures of less than 54 pixels: all
            edges look sharp there, and a blurred stroke would look like a shadow.

    Returns:
        Whether there is a shadow, 1 or 0, (); the lowest and the highest brightness of the paper near each pixel,
        (80, 2, 80), and its mean (). These are 1 if there is no shadow.
    """
    grey = pixels[1:2] * valid
    paper = 1 - highest(1 - highest(F.pad(grey, (12, 12, 12, 12))))  # closing, with squares that cross the border
    shadow = is_shadow(pixels, grey, paper, valid) * (step > 0.19).to(grey.dtype)
    # the narrow parts of a shadow are as bright as its wide ones nearby
    level = 1 - highest(highest(F.pad((1 - paper) * valid, (12, 12, 12, 12), "replicate")))
    narrow = ((grey > 0.9 * level) & (grey < 1.1 * level) & (level < 0.85 * paper)).to(grey.dtype)
    wide = (paper < 1.1 * level).to(grey.dtype)
    tip = narrow * around(1 - around(1 - torch.maximum(narrow, wide)))  # of a corner or an arc
    narrow = around(around(1 - around(1 - narrow)))  # without soft edges of strokes
    narrow = torch.maximum(narrow, tip)
    paper = narrow * level + (1 - narrow) * paper
    darkest, brightest = around(torch.cat(((1 - paper) * valid, paper * valid))).unbind()
    limits = torch.stack((1 - darkest, brightest), dim=1)
    mean = (paper * valid).sum() / valid.sum()
    return shadow, shadow * limits + (1 - shadow), shadow * mean + (1 - shadow)


def is_shadow(pixels: Tensor, grey: Tensor, paper: Tensor, valid: Tensor) -> Tensor:
    """Whether the picture has a bright and a dark region of the same hue, with a sharp edge between them: 1 or 0, ().

    Both regions are large and reach the border, unlike a filled shape or a note, and extend far into the picture,
    unlike the frame of a printed cell.

    Args:
        pixels: (4, 80, 80).
        grey: their brightness, (1, 80, 80).
        paper: `grey` without dark strokes, (1, 80, 80).
        valid: (80, 80).
    """
    inside = (1 - highest(F.pad((1 - paper) * valid, (6, 6, 6, 6), "replicate"))) * valid
    region = highest(F.pad(inside, (6, 6, 6, 6), "replicate"))  # without bright strokes and frames, too
    bright, dark = (region * valid).max(), 1 - ((1 - region) * valid).max()
    step = around(torch.cat((region * valid, (1 - region) * valid))).sum(dim=0) - 1
    edge = ((step > 0.42 * (bright - dark)).to(grey.dtype) * valid).sum()
    hue = pixels[:3] / grey.clamp(min=0.02)
    other = (hue - (hue * valid).sum(dim=(1, 2), keepdim=True) / valid.sum()).abs().amax(dim=0)
    plain = (((grey - paper).abs() < 0.15 * paper) & (other < 0.2)).to(grey.dtype) * valid
    lit = (paper > (bright + dark) / 2).to(grey.dtype)
    both = torch.cat((plain * lit, plain * (1 - lit)))
    rim = valid - (1 - around(1 - F.pad(valid[None], (1, 1, 1, 1)))[:, 1:-1, 1:-1])
    chalk = ((paper > 1.15 * bright).to(grey.dtype) * valid).sum()  # strokes brighter than what they are drawn on
    inner = _inset(valid.amax(dim=1))[:, None] * _inset(valid.amax(dim=0))
    total = valid.sum()
    return (
        (dark < 0.85 * bright)
        & (dark > 0.22 * bright)
        & (bright > 0.15)
        & (edge > 20)
        & (chalk < 0.005 * total)
        & (both.sum() > 0.6 * total)
        & ((both * inner).sum(dim=(1, 2)).min() > 0.005 * total)
        & ((both * rim).sum(dim=(1, 2)).min() > 0.05 * rim.sum())
        & ((pixels[3] * valid).sum() > 0.99 * total)
    ).to(grey.dtype)


def _inset(side: Tensor) -> Tensor:
    """1 on the picture and 0 outside, (80,) → 1 on the picture except for a margin of a tenth, at most 6."""
    index, length = torch.arange(80, device=side.device), side.sum()
    margin = (0.1 * length).clamp(max=6)
    return ((index >= margin) & (index < length - margin)).to(side.dtype)


def light_at(pixels: Tensor, limits: Tensor, mean: Tensor) -> Tensor:
    """Pixels (n, 4, m) and the limits of the paper's brightness (n, 2, m) → the light on each pixel, (n, m).

    It is 1 where the paper has its `mean` brightness. Between the limits, as at a shadow's edge, a pixel is paper.
    """
    return (torch.minimum(torch.maximum(pixels[:, 1], limits[:, 0]), limits[:, 1]) / mean).clamp(min=0.1)


def highest(pixels: Tensor) -> Tensor:
    """(n, h, w) → maximum of every square of 13 × 13 pixels, (n, h - 12, w - 12)."""
    for shift in (1, 2, 4, 5):  # from 1 to 2, 4, 8 and 13 rows
        pixels = torch.maximum(pixels[:, :-shift], pixels[:, shift:])
    for shift in (1, 2, 4, 5):
        pixels = torch.maximum(pixels[:, :, :-shift], pixels[:, :, shift:])
    return pixels
