"""Corrupted digits: running statistics compared with batch statistics.

If all inputs shift in the same way (all inverted, all faint), batch statistics follow the shift and undo part of it
(test-time batch normalisation; Nado et al. 2020, arXiv 2006.10963). In small or clean batches they only add noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.data import load_sample
from bnmodel.experiments.batch_statistics import in_eval_mode, with_batch_statistics
from bnmodel.experiments.blur import gaussian_blur
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.cost import CHUNK, is_large
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.training.evaluation import predict_log_probs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEVERITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CLEAN = "clean"  # severity 0 of every kind, so that it is computed once
SAMPLES, SAMPLES_OF_LARGE = 500, 100


@dataclass(frozen=True)
class Corruption:
    """Accuracy over severity in both modes, and the answers for one digit."""

    kind: str
    batch_size: int
    severities: np.ndarray  # (S,)
    eval_accuracy: np.ndarray  # (S,) running statistics
    train_accuracy: np.ndarray  # (S,) statistics of batches of the same corruption
    label: int  # answer for the clean digit in eval mode
    digits: np.ndarray  # (S, 28, 28) the digit, corrupted
    eval_probability: np.ndarray  # (S,) of `label`
    train_probability: np.ndarray  # (S,)
    samples: int  # number of digits that accuracy is measured on


def noise(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Add normal noise of standard deviation `severity`."""
    return (images + severity * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def blur(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur with a standard deviation of up to 3 pixels."""
    return gaussian_blur(images, 13, 3 * severity) if severity else images


def inversion(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Blend the image with its negative."""
    return (1 - severity) * images + severity * (1 - images)


def contrast(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Reduce the ink to as little as 5% of its brightness."""
    return images * (1 - 0.95 * severity)


KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "inversion": inversion,
    "contrast": contrast,
}


def run(model: nn.Module, digit: Tensor, kind: str = "contrast", batch_size: int = 50, seed: int = 0) -> Corruption:
    """Predict `digit`, float32 (28, 28), and 500 test digits of the sample (100 for a large network) with a corruption.

    Batches are no larger than the number of digits.

    Raises:
        ValueError: an unknown kind, or a batch size that is not a divisor of 500 in 2 … 500.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, received {kind!r}")
    if batch_size < 2 or SAMPLES % batch_size:
        raise ValueError(f"batch_size: expected a divisor of {SAMPLES}, at least 2, received {batch_size}")
    batch_size = min(batch_size, samples(model))
    model = in_eval_mode(model)
    label = int(predict_log_probs(model, digit.view(1, 1, 28, 28)).argmax())
    one = digit.view(1, 1, 28, 28)
    digits = torch.cat([KINDS[kind](one, severity, torch.Generator().manual_seed(seed)) for severity in SEVERITIES])
    clean = answers(model, digits[:1], CLEAN, SEVERITIES[:1], batch_size, seed)
    corrupted = answers(model, digits[1:], kind, SEVERITIES[1:], batch_size, seed)
    alone, among = (torch.cat(pair)[:, label].numpy() for pair in zip(clean, corrupted, strict=True))
    return Corruption(
        kind,
        batch_size,
        np.array(SEVERITIES),
        accuracies(model, kind, 0, seed),
        accuracies(model, kind, batch_size, seed),
        label,
        digits[:, 0].numpy(),
        alone,
        among,
        samples(model),
    )


def samples(model: nn.Module) -> int:
    """Number of digits on which accuracy is measured."""
    return SAMPLES_OF_LARGE if is_large(model) else SAMPLES


@cache_by_content(32)
def answers(
    model: nn.Module, own: Tensor, kind: str, severities: tuple[float, ...], batch_size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Probabilities (S, 10) of `own`, (S, 1, 28, 28), in eval mode, and each in a batch of its severity."""
    others = [corrupted_sample(kind, severity, seed)[: batch_size - 1] for severity in severities]
    batches = torch.cat([image for k, rest in enumerate(others) for image in (own[k : k + 1], rest)])
    among = []
    with torch.inference_mode(), QuickPooling():
        for part in batches.split(batch_size * max(1, CHUNK // batch_size)):
            count = len(part) // batch_size
            among.append(with_batch_statistics(model, count)(part).unflatten(0, (count, -1))[:, 0].exp())
        return model(own).exp(), torch.cat(among)


@lru_cache(maxsize=2 * len(SEVERITIES))
def corrupted_sample(kind: str, severity: float, seed: int) -> Tensor:
    """500 corrupted test digits of the sample, (500, 1, 28, 28)."""
    images = load_sample(train=False).images[_order(seed)]
    return KINDS[kind](images, severity, torch.Generator().manual_seed(seed)) if kind != CLEAN else images


@lru_cache(maxsize=4)
def _order(seed: int) -> Tensor:
    return torch.randperm(len(load_sample(train=False)), generator=torch.Generator().manual_seed(seed))[:SAMPLES]


def accuracies(model: nn.Module, kind: str, batch_size: int, seed: int) -> np.ndarray:
    """Accuracies (S,) on `samples` digits with the statistics of batches of `batch_size`; 0: running statistics."""
    clean = _accuracies(model, CLEAN, SEVERITIES[:1], batch_size, seed)
    return np.concatenate((clean, _accuracies(model, kind, SEVERITIES[1:], batch_size, seed)))


@cache_by_content(128)
def _accuracies(model: nn.Module, kind: str, severities: tuple[float, ...], batch_size: int, seed: int) -> np.ndarray:
    count = samples(model)
    labels = load_sample(train=False).labels[_order(seed)][:count]
    at_once = batch_size * max(1, CHUNK // batch_size) if batch_size else CHUNK  # digits
    lengths = {at_once, count % at_once} - {0}
    networks = {n: with_batch_statistics(model, n // batch_size) if batch_size else model for n in lengths}
    shares = []
    with torch.inference_mode(), QuickPooling():  # predict_log_probs has its own batch size
        for severity in severities:
            parts = corrupted_sample(kind, severity, seed)[:count].split(at_once)
            answers = torch.cat([networks[len(part)](part) for part in parts]).argmax(1)
            shares.append(float((answers == labels).float().mean()))
    return np.array(shares)


@plotting.plot_style()
def figure(result: Corruption) -> Figure:
    """Accuracy, and the probability for one digit, over severity."""
    drawn, (accuracy, answer) = plotting.new_figure(columns=2, width=7.6)
    for axes, left, right, title, name in (
        (accuracy, result.eval_accuracy, result.train_accuracy, f"{result.samples} test digits", "accuracy"),
        (answer, result.eval_probability, result.train_probability, "this digit", f"probability of “{result.label}”"),
    ):
        axes.plot(result.severities, left, "o-", color=plotting.EVAL, label="running statistics")
        batch = f"statistics of batches of {result.batch_size}"
        axes.plot(result.severities, right, "s--", color=plotting.TRAIN, label=batch)
        axes.set(title=title, xlabel=f"{result.kind}, severity 0 to 1", ylabel=name, ylim=(0, 1.03))
        plotting.percent_axis(axes.yaxis)
    plotting.legend(drawn, accuracy)
    return drawn
