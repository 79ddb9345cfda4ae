"""Robust estimates of colours (premultiplied red, green, blue, alpha), in operations that all runtimes have."""

import torch
import torch.nn.functional as F
from torch import Tensor


def paper_colours(pixels: Tensor, middle: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The common colour in the middle of the picture, and that of the paper.

    The paper has the median of each channel, unless there are many strongly different dark and bright pixels, and less
    than half of the picture has the median. This is then ink or a mixture, and the paper is the colour that is most
    frequent in the picture and in its corners.

    Args:
        pixels: (4, 80, 80).
        middle: weights of the pixels in the middle, (1, 80, 80).
        valid: 1 on the picture and 0 outside, (1, 80, 80).

    Returns:
        The two colours, (4, 1, 1) each, and whether there are many strongly different dark and bright pixels, ().
    """
    inner, median = common_colours(pixels, torch.stack((middle, valid))).unbind()
    green, shares = pixels[1:2], torch.tensor((0.15, 0.85), dtype=pixels.dtype, device=pixels.device)
    ends = _quantiles(green, torch.stack((valid, valid)), shares[:, None, None])[..., None]  # dark and bright
    near = (biweight(green - ends, 1 / 255) * valid).flatten(1)
    ends = (near @ pixels.flatten(1).t() / near.sum(dim=1, keepdim=True).clamp(min=1e-6))[..., None, None]
    strong = (ends[0] - ends[1]).abs().max() > 0.5
    colours = torch.cat((median[None], ends))  # (3, 4, 1, 1)
    alike = biweight(pixels - colours, 0.2)[:, 0] * valid
    corners = valid * _outwards(valid[0, :, :1])[:, None] * _outwards(valid[0, :1])
    share = alike.sum(dim=(1, 2)) / valid.sum()
    frequency = share + (alike * corners).sum(dim=(1, 2)) / corners.sum()
    preference = torch.tensor((1.25, 1.0, 1.0), dtype=pixels.dtype, device=pixels.device)  # of the median
    common = F.embedding((frequency * preference).argmax(), colours.flatten(1)).view(4, 1, 1)
    return inner, torch.where(strong & (share[0] < 0.5), common, median), strong


def _outwards(line: Tensor) -> Tensor:
    """0 in the middle of the positive part of `line`, of 80 values, growing towards both ends."""
    away = (torch.arange(80, device=line.device) + 0.5) / line.sum() - 0.5
    return away * away


def common_colours(pixels: Tensor, weights: Tensor) -> Tensor:
    """The mean of the pixels within 1 / 255 of the median of each channel; exact if these are equal.

    Pixels (4, h, w), one or several weights of them (K, 1, h, w) → (K, 4, 1, 1).
    """
    colours = _quantiles(pixels, weights, torch.full_like(weights[:, :, :1, 0], 0.5))[..., None]
    difference = pixels - colours
    alike = biweight(difference, 1 / 255) * weights
    shift = (difference * alike).sum(dim=(2, 3), keepdim=True) / alike.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return colours + shift


def biweight(difference: Tensor, scale: float, channels: int = -3) -> Tensor:
    """(…, 4, h, w) → (…, 1, h, w): 1 for no difference, 0 for a difference of `scale` or more in any channel.

    `channels` is the axis of the channels.
    """
    ratio = difference.abs().amax(dim=channels, keepdim=True) / scale
    inside = (1 - ratio * ratio).clamp(min=0)
    return inside * inside


def _quantiles(pixels: Tensor, weights: Tensor, shares: Tensor) -> Tensor:
    """Weighted quantiles per channel, to 1 / 512: (C, h, w), (K, 1, h, w), (K, 1, 1) → (K, C, 1).

    By bisection, since some runtimes cannot sort.
    """
    values, weights = pixels.flatten(1), weights.flatten(2)  # (C, h · w), (K, 1, h · w)
    least = weights.sum(dim=2, keepdim=True) * shares
    middle = torch.full((weights.size(0), pixels.size(0), 1), 0.5, dtype=pixels.dtype, device=pixels.device)
    step = 0.5
    for _ in range(8):
        step = step / 2
        below = (weights * (values <= middle)).sum(dim=2, keepdim=True)  # (K, C, 1)
        middle = middle + torch.where(below < least, step, -step)
    below = (weights * (values <= middle)).sum(dim=2, keepdim=True)
    return middle + torch.where(below < least, step, 0.0)
