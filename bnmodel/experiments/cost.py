"""Limits on the computation of an experiment in the app.

On one core, a large network such as robust takes half a second per 1,000 digits, a small one a twentieth of that.
"""

import torch
from torch import nn

from bnmodel.data import Digits, load_sample
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.pooling import QuickPooling

LARGE = 200_000  # parameters
DIGITS, DIGITS_OF_LARGE = 1000, 250  # of the sample's test digits, for an accuracy
CHUNK = 100  # digits per forward pass; more do not fit into the processor's cache


def is_large(model: nn.Module) -> bool:
    return sum(parameter.numel() for parameter in model.parameters()) > LARGE


def scored_digits(model: nn.Module) -> Digits:
    """The first test digits of the sample, on which the accuracy of `model` is measured."""
    sample = load_sample(train=False)
    return sample[slice(DIGITS_OF_LARGE if is_large(model) else DIGITS)]


@cache_by_content(256)
def accuracy(model: nn.Module) -> float:
    """Accuracy of `model`, which is in eval mode, on `scored_digits`."""
    digits = scored_digits(model)
    with torch.inference_mode(), QuickPooling():
        answers = torch.cat([model(images).argmax(1) for images in digits.images.split(CHUNK)])
    return int((answers == digits.labels).sum()) / len(digits)
