"""Randomness of train-mode answers: the same digit in many random batches.

The statistics of a small batch are noisy estimates, which make the answer noisy; both converge as the batch grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.data import load_sample
from bnmodel.experiments.batch_statistics import with_batch_statistics
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.cost import CHUNK, is_large
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.training.evaluation import predict_log_probs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CURVE_DIGITS = 1024  # per batch size, in at least 16 batches
CURVE_SEED = 0


@dataclass(frozen=True)
class BatchSpread:
    """Probabilities of the eval-mode answer: all of them for one batch size, quantiles for several."""

    label: int  # the answer in eval mode
    eval_probability: float
    batch_size: int
    probabilities: np.ndarray  # (batches,) of `label` in train mode, at batch_size
    flipped: float  # share of these batches in which another digit wins
    sizes: np.ndarray  # (S,)
    quantiles: np.ndarray  # (S, 3): 10%, 50%, 90%


def run(
    model: nn.Module, digit: Tensor, batch_size: int = 32, batches: int = 200, seed: int = 0, largest: int = 256
) -> BatchSpread:
    """Predict `digit`, float32 (28, 28), in `batches` random batches of `batch_size`, the digit included.

    Args:
        batch_size: 1 … 256.
        seed: of these batches; the batches of the other sizes are fixed.
        largest: largest batch size of the curve.

    Raises:
        ValueError: batch_size out of range.
    """
    if not 1 <= batch_size <= 256:
        raise ValueError(f"batch_size: expected 1 … 256, received {batch_size}")
    probabilities = predict_log_probs(model, digit.view(1, 1, 28, 28))[0].exp()
    label = int(probabilities.argmax())
    chosen = draw_batches(model, digit, batch_size, batches, seed)
    sizes = [size for size in SIZES if size <= largest or size == batch_size]
    curve = [
        chosen if size == batch_size else draw_batches(model, digit, size, _fewer(model, size, batches), CURVE_SEED)
        for size in sizes
    ]
    return BatchSpread(
        label,
        float(probabilities[label]),
        batch_size,
        chosen[:, label].numpy(),
        _flipped(chosen, label),
        np.array(sizes),
        np.array([np.quantile(p[:, label].numpy(), (0.1, 0.5, 0.9)) for p in curve]),
    )


@cache_by_content(64)
def draw_batches(model: nn.Module, digit: Tensor, size: int, batches: int, seed: int) -> Tensor:
    """Train-mode probabilities (batches, 10) of `digit`, each time among `size` − 1 random digits of the sample."""
    if size == 1 and batches > 1:  # alone, the digit gets the same answer every time
        return draw_batches(model, digit, 1, 1, seed).expand(batches, -1)
    pool = load_sample(train=True).images
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(len(pool), generator=generator)[: size - 1] for _ in range(batches)])
    chunks = order.split(max(1, CHUNK // size))
    networks = {count: with_batch_statistics(model, count) for count in {len(chosen) for chosen in chunks}}
    answers = []
    for chosen in chunks:
        count = len(chosen)
        others = pool[chosen]  # (B, size − 1, 1, 28, 28)
        own = digit.expand(count, 1, 1, 28, 28)
        batch = torch.cat((own, others), dim=1).flatten(0, 1)  # (B · size, 1, 28, 28)
        with torch.inference_mode(), QuickPooling():
            log_probs = networks[count](batch)
        answers.append(log_probs.unflatten(0, (count, size))[:, 0].exp())
    return torch.cat(answers)


@plotting.plot_style()
def figure(result: BatchSpread) -> Figure:
    """A histogram for the chosen batch size, and quantiles over all sizes."""
    drawn, (histogram, curve) = plotting.new_figure(columns=2, width=7.6)
    edges = np.linspace(0, 1, 26)
    counts = np.histogram(result.probabilities, edges)[0]
    probability = f"probability of “{result.label}”"
    plotting.stairs(
        histogram, counts, edges, fill=True, color=plotting.TRAIN, alpha=0.6, linewidth=0, label="train mode"
    )
    histogram.axvline(result.eval_probability, color=plotting.EVAL, label="eval mode")
    histogram.set(
        title=f"{len(result.probabilities)} batches of {result.batch_size}: {plotting.percent(result.flipped)} flip",
        xlabel=probability,
        ylabel="number of batches",
        xlim=(-0.01, 1.01),
    )
    plotting.percent_axis(histogram.xaxis)
    plotting.whole_numbers(histogram.yaxis)
    low, middle, high = result.quantiles.T
    band = "train mode, 10 to 90%"
    curve.fill_between(result.sizes, low, high, color=plotting.TRAIN, alpha=0.2, label=band)
    for values, name in ((low, "10% of batches below"), (high, "90% of batches below")):
        curve.plot(result.sizes, values, linestyle="none", label=f"_{name}")
    curve.plot(result.sizes, middle, "o--", color=plotting.TRAIN, markersize=4, label="train mode, median")
    curve.axhline(result.eval_probability, color=plotting.EVAL, label="eval mode")
    curve.axvline(result.batch_size, color=plotting.INK, linestyle=":", linewidth=1)
    curve.set(
        title=f"batches of {result.sizes[0]} to {result.sizes[-1]}",
        xlabel="batch size, digits (log)",
        ylabel=probability,
        xscale="log",
        ylim=(-0.03, 1.03),
    )
    plotting.ticks(curve.xaxis, list(result.sizes), [str(size) for size in result.sizes])
    plotting.percent_axis(curve.yaxis)
    curve.minorticks_off()
    plotting.legend(drawn, histogram, curve)
    return drawn


def _fewer(model: nn.Module, size: int, batches: int) -> int:
    """Number of batches of the curve: fewer large ones, which vary little and take long."""
    least, digits = (4, CURVE_DIGITS // 8) if is_large(model) else (16, CURVE_DIGITS)
    return min(batches, max(least, digits // size))


def _flipped(probabilities: Tensor, label: int) -> float:
    return float((probabilities.argmax(1) != label).float().mean())
