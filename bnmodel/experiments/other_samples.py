"""The other samples of a digit's batch, and the search for some that change its answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from bnmodel.data import Digits, load_sample
from bnmodel.experiments.batch_statistics import with_batch_statistics
from bnmodel.experiments.blur import gaussian_blur
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.pooling import QuickPooling

KINDS = ("random", "one class", "copies", "blurred", "inverted", "blank", "noise")
MAX_OTHERS = 255


@dataclass(frozen=True)
class Others:
    """Arguments of `other_samples`."""

    kind: str = "random"
    count: int = 31
    label: int | None = None
    seed: int = 0


def other_samples(kind: str, count: int, seed: int, digit: Tensor, label: int | None = None) -> Tensor:
    """Draw the other images of the batch of `digit`, float32 (28, 28), from the shipped training sample.

    Args:
        kind: one of KINDS. "one class": digits of `label`; "inverted", "blurred": random digits with this change;
            "blank": empty sheets.
        count: 0 … 255.
        seed: the same seed gives the same images.

    Returns:
        float32 (count, 1, 28, 28) in [0, 1].
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, received {kind!r}")
    if not 0 <= count <= MAX_OTHERS:
        raise ValueError(f"count: expected 0 … {MAX_OTHERS}, received {count}")
    generator = torch.Generator().manual_seed(seed)
    if kind == "copies":
        return digit.expand(count, 1, 28, 28).clone()
    if kind == "blank":
        return torch.zeros(count, 1, 28, 28)
    if kind == "noise":
        return torch.rand(count, 1, 28, 28, generator=generator)
    pool = load_sample(train=True)
    if kind == "one class":
        if label is None or not 0 <= label <= 9:
            raise ValueError(f"label: expected a digit 0 … 9 for samples of one class, received {label}")
        pool = pool[pool.labels == label]
    images = _draw(pool, count, generator)
    if kind == "inverted":
        return 1 - images
    return gaussian_blur(images, 9, 2.5) if kind == "blurred" and count else images


CLASSES = [("one class", label) for label in range(10)]
OTHER_KINDS = [("random", None), ("blurred", None), ("blank", None), ("inverted", None), ("noise", None)]
# The stages of the search, the cheapest first: robust takes 10 ms for the first one, 100 ms for all of them
TRIED = (
    (CLASSES, 1),
    (CLASSES, 7),
    (OTHER_KINDS, 7),
    (OTHER_KINDS, 31),
)
CLEAR = 0.3  # probability of another answer at which the search ends


@cache_by_content(64)
def most_revealing(model: nn.Module, digit: Tensor, seed: int = 0) -> tuple[Others, bool]:
    """Search for other samples that change the train-mode answer to `digit`, (28, 28).

    Returns:
        The first samples for which another answer has a probability of at least CLEAR; if there are none, those with
        the most probable other answer; if the answer never changes, those that lower the probability of eval mode's
        answer most. Also, whether the answer changes.
    """
    with torch.inference_mode():
        label = int(model(digit.view(1, 1, 28, 28)).argmax())
    closest, least = Others("one class", 7, 0, seed), 2.0
    flipped: tuple[Others, float] | None = None
    for kinds, count in TRIED:
        choices = [Others(kind, count, of_class, seed) for kind, of_class in kinds]
        probabilities = _in_each(model, digit, choices)  # (K, 10)
        others = probabilities.clone()
        others[:, label] = -1
        best = others.max(1).values
        best[best <= probabilities[:, label]] = 0  # eval mode's answer stays
        if float(best.max()) > (flipped[1] if flipped else 0.0):
            flipped = choices[int(best.argmax())], float(best.max())
        if flipped and flipped[1] >= CLEAR:
            break
        own = probabilities[:, label]
        if float(own.min()) < least:
            closest, least = choices[int(own.argmin())], float(own.min())
    return (flipped[0], True) if flipped else (closest, False)


def _in_each(model: nn.Module, digit: Tensor, choices: Sequence[Others]) -> Tensor:
    """(K, 10): train-mode probabilities of `digit` in K batches with different other samples, the same number each."""
    own = digit.expand(len(choices), 1, 1, 28, 28)
    batches = torch.cat((own, _images(tuple(choices))), dim=1).flatten(0, 1)
    with torch.inference_mode(), QuickPooling():
        log_probs = with_batch_statistics(model, len(choices))(batches)
    probabilities: Tensor = log_probs.unflatten(0, (len(choices), -1))[:, 0].exp()
    return probabilities


@lru_cache(maxsize=16)  # four stages per seed, at most 0.5 MB each
def _images(choices: tuple[Others, ...]) -> Tensor:
    """(K, count, 1, 28, 28): the images of K choices with the same count, none of them copies of the digit."""
    nothing = torch.zeros(28, 28)
    return torch.stack([other_samples(c.kind, c.count, c.seed, nothing, c.label) for c in choices])


def _draw(pool: Digits, count: int, generator: torch.Generator) -> Tensor:
    """`count` images of `pool`, without repetition while there are enough."""
    rounds = -(-count // len(pool))
    order = torch.cat([torch.randperm(len(pool), generator=generator) for _ in range(rounds)] or [torch.arange(0)])
    return pool.images[order[:count]]
