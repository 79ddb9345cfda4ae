"""Robust estimates of colours (premultiplied red, green, blue, alpha), in operations that all runtimes have."""

import torch
from torch import Tensor


def common_colours(pixels: Tensor, weights: Tensor) -> Tensor:
    """The mean of the pixels within 1 / 255 of the median of each channel; exact if these are equal.

    Pixels (4, h, w), one or several weights of them (K, 1, h, w) → (K, 4, 1, 1).
    """
    colours = _medians(pixels, weights)[..., None]
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


def _medians(pixels: Tensor, weights: Tensor) -> Tensor:
    """Weighted medians per channel, to 1 / 512: (K, 4, 1). By bisection, since some runtimes cannot sort."""
    values, shares = pixels.flatten(1), weights.flatten(2)  # (4, h · w), (K, 1, h · w)
    half = shares.sum(dim=2, keepdim=True) / 2
    middle = torch.full((weights.size(0), 4, 1), 0.5, dtype=pixels.dtype, device=pixels.device)
    step = 0.5
    for _ in range(8):
        step = step / 2
        below = (shares * (values <= middle)).sum(dim=2, keepdim=True)  # (K, 4, 1)
        middle = middle + torch.where(below < half, step, -step)
    below = (shares * (values <= middle)).sum(dim=2, keepdim=True)
    return middle + torch.where(below < half, step, 0.0)
