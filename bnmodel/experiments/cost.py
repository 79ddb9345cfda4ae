"""How much an experiment may compute: somebody waits for it.

A network with many parameters, as robust, takes half a second per 1,000 digits on one core, a small one a twentieth.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bnmodel.data import Digits, load_sample
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.pooling import QuickPooling

LARGE = 200_000  # parameters
DIGITS, DIGITS_OF_LARGE = 1000, 250  # of the sample's test digits, for an accuracy
CHUNK = 100  # digits computed at once: more of them leave the processor's cache


def is_large(model: nn.Module) -> bool:
    return sum(parameter.numel() for parameter in model.parameters()) > LARGE


def scored_digits(model: nn.Module) -> Digits:
    """The sample's first test digits, as many as an accuracy of `model` is measured on."""
    sample = load_sample(train=False)
    return sample[slice(DIGITS_OF_LARGE if is_large(model) else DIGITS)]


@cache_by_content(256)
def accuracy(model: nn.Module) -> float:
    """The share of `scored_digits` that `model`, in eval mode, gets right."""
    digits = scored_digits(model)
    with torch.inference_mode(), QuickPooling():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in _chunks(digits))
    return right / len(digits)


def _chunks(digits: Digits) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(digits.images.split(CHUNK), digits.labels.split(CHUNK), strict=True)
