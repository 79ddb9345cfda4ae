"""What `watch` measures of a layer at one training step."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnmodel.diagnosis.batchnorms import Norm, running_statistics, scale_of
from bnmodel.diagnosis.moments import per_sample

MOST_VALUES = 4096  # measured per channel of a batch


@dataclass(frozen=True)
class Measurement:
    """A layer at a training step, before the step updates its running statistics.

    Attributes:
        step: training forward passes so far.
        layer: qualified name.
        batches: seen in training mode.
        distance: of the batch mean from the running mean, in running standard deviations; root mean square over
            channels.
        variance_ratio: batch variance / running variance; geometric mean over channels.
        values: per channel in the batch.
        amplification: largest |γ|/√(running variance + ε).
        smallest_scale: smallest |γ|.
    """

    step: int
    layer: str
    batches: int | None
    distance: float | None
    variance_ratio: float | None
    values: int
    amplification: float | None
    smallest_scale: float | None


def rows_of(norm: Norm, x: Tensor) -> Tensor:
    """Mean and mean square of the batch, γ and, if there are any, running mean and variance, (R, C)."""
    mean, square = per_sample(x, 0)
    scale = scale_of(norm)
    rows = [mean.mean(0), square.mean(0), torch.ones_like(mean[0]) if scale is None else scale.detach()]
    return torch.stack([row.to(rows[0]) for row in (*rows, *(running_statistics(norm) or ()))])


def measured(rows: np.ndarray, tracked: bool, eps: float) -> list[float]:
    """Distance, variance ratio, largest amplification and smallest |γ|; NaN if the layer has none.

    In NumPy: torch's operators cost several times as much on so few numbers.
    """
    mean, square, scale = rows[0], rows[1], np.abs(rows[2])
    found = [math.nan, math.nan, math.nan, float(scale.min())]
    if tracked:
        with np.errstate(all="ignore"):  # invalid statistics become findings
            old_var = rows[4] + eps
            found[0] = math.sqrt(((mean - rows[3]) ** 2 / old_var).mean())
            var = np.maximum(square - mean**2, 0.0) + eps
            found[1] = float(np.exp(np.log(var / old_var).mean()))
            found[2] = float((scale / np.sqrt(old_var)).max())
    return found


def thinned(x: Tensor) -> Tensor:
    """The first samples, with about MOST_VALUES values per channel."""
    values = max(x[:1].numel() // x.size(1), 1)  # per sample
    return x[: max(MOST_VALUES // values, 2)]
