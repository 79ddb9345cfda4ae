"""Mean and variance per channel over all batches, with standard errors.

The values of one sample are correlated, as neighbouring pixels are. Standard errors therefore treat samples, not
values, as independent (cluster-robust, Liang & Zeger 1986): with per-sample means mᵢ over wᵢ values,

    μ = Σ wᵢ·mᵢ / W        Var(μ) = N/(N − 1) · Σ wᵢ²·(mᵢ − μ)² / W²

and the same for the variance with vᵢ, the mean of (x − μ)² within a sample. The result does not depend on how the
samples are split into batches.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BUFFERED_SAMPLES = 1024  # per-sample moments held before they are summed
CANCELLATION = 300.0  # mean²/variance above which float32 raw moments lose the third digit of the variance


@dataclass(frozen=True)
class Statistics:
    """A layer's input over all batches. Arrays are (C,), float64.

    In NumPy, like everything computed per layer: torch's operators take several times as long for so few numbers.

    Attributes:
        mean, var: population mean and biased variance.
        mean_error, var_error: their standard errors.
        samples: independent samples.
        values: values per channel.
        sample_mean_var, sample_var_var: variance between samples of mᵢ and vᵢ; over B they are those of a batch of B.
    """

    mean: np.ndarray
    var: np.ndarray
    mean_error: np.ndarray
    var_error: np.ndarray
    samples: int
    values: int
    sample_mean_var: np.ndarray
    sample_var_var: np.ndarray

    def values_per_sample(self) -> float:
        """Effective number of independent values per channel that a sample contributes, median over live channels."""
        live = self.var > 1e-12
        if self.samples < 2 or not live.any():
            return math.nan
        ratio = self.var[live] / np.maximum(self.sample_mean_var[live], 1e-30)
        middle = (len(ratio) - 1) // 2
        return float(np.partition(ratio, middle)[middle])


def array(tensor: Tensor) -> np.ndarray:
    """float64, on the CPU."""
    found: np.ndarray = tensor.detach().cpu().double().numpy()
    return found


def per_sample(x: Tensor, samples: int, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and mean square of each sample and channel, (S, C) each.

    Args:
        x: (N, C) or (N, C, *spatial).
        samples: in the batch. If N = k·samples, k consecutive rows are one sample (flattened sequences).
        centre: (C,) is subtracted first; None for raw moments.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if centre is not None:
        x = x - centre.to(x).view(1, -1, *[1] * (x.dim() - 2))
    if x.dim() > 2:
        axes = tuple(range(2, x.dim()))
        mean = x.mean(axes)
        if x.is_contiguous():  # one pass over the memory; several times slower for other layouts
            square = torch.linalg.vector_norm(x, dim=axes).square_().div_(math.prod(x.shape[2:]))
        else:
            square = x.square().mean(axes)
    else:
        mean, square = x, x.square()
    rows = x.size(0)
    if samples and rows > samples and rows % samples == 0:
        mean = mean.reshape(samples, rows // samples, -1).mean(1)
        square = square.reshape(samples, rows // samples, -1).mean(1)
    return mean, square


def batch_moments(x: Tensor, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of one batch; `centre` near the mean prevents cancellation."""
    mean, square = per_sample(x, 0, centre)
    mean, square = mean.mean(0), square.mean(0)
    var = (square - mean.square()).clamp_(min=0)
    return (mean if centre is None else mean + centre.to(mean)), var


class Moments:
    """Running sums over samples, per channel, of one layer's input.

    Args:
        like: its centre is used, so that both can be merged.
    """

    def __init__(self, like: "Moments | None" = None) -> None:
        self.centre: Tensor | None = None if like is None else like.centre  # (C,): all sums are about it
        self.subtract: bool = like is not None and like.subtract  # the centre from the input: raw moments would cancel
        self.samples = self.values = 0
        self._buffer: list[tuple[Tensor, Tensor, int]] = []
        self._buffered = 0
        self._weights = np.zeros(2)  # Σw, Σw²
        self._sums: np.ndarray | None = None  # (7, C): wa, wb, w²a, w²b, w²a², w²b², w²ab

    def start(self, mean: Tensor, square: Tensor) -> None:
        """Take the mean of the first batch as the centre, given its raw moments per sample."""
        centre = mean.double().mean(0) if mean.device.type != "mps" else mean.mean(0)
        var = (square.mean(0) - centre.square()).clamp(min=0)
        self.centre = torch.nan_to_num(centre, 0.0, 0.0, 0.0)
        self.subtract = bool((centre.square() > CANCELLATION * var).logical_and(centre.abs() > 1e-6).any())

    def add(self, x: Tensor, samples: int) -> None:
        """Add one batch (N, C, *spatial) of `samples` samples."""
        if x.numel() == 0:
            return
        mean, square = per_sample(x, samples, self.centre if self.subtract else None)
        if self.centre is None:
            self.start(mean, square)
            if self.subtract:
                mean, square = per_sample(x, samples, self.centre)
        values = x.numel() // x.size(1)
        self._buffer.append((mean, square, values // len(mean)))
        self.samples += len(mean)
        self.values += values
        self._buffered += len(mean)
        if self._buffered >= BUFFERED_SAMPLES:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer or self.centre is None:
            return
        means, squares, values = zip(*self._buffer, strict=True)
        mean, square = array(torch.cat(means)), array(torch.cat(squares))  # (S, C)
        w = np.repeat(np.array(values, dtype=float), [len(part) for part in means])
        self._buffer, self._buffered = [], 0
        if self.subtract:
            a, b = mean, square
        else:
            centre = array(self.centre)
            a, b = mean - centre, np.maximum(square + centre * (centre - 2 * mean), 0)
        weights = np.stack([w, w**2])
        (wa, w2a), (wb, w2b) = weights @ a, weights @ b
        w2aa, w2bb, w2ab = (weights[1] @ product for product in (a * a, b * b, a * b))
        sums = np.stack([wa, wb, w2a, w2b, w2aa, w2bb, w2ab])
        self._sums = sums if self._sums is None else self._sums + sums
        self._weights += weights.sum(1)

    def merged(self, other: "Moments") -> "Moments":
        """Both together; they must have the same centre."""
        self._flush()
        other._flush()
        result = Moments(self)
        result.samples, result.values = self.samples + other.samples, self.values + other.values
        result._weights = self._weights + other._weights
        parts = [sums for sums in (self._sums, other._sums) if sums is not None]
        result._sums = np.sum(parts, axis=0) if parts else None
        return result

    def statistics(self) -> Statistics | None:
        """Mean, variance and standard errors; None if nothing was added."""
        self._flush()
        if self._sums is None or self.centre is None:
            return None
        total, total2 = self._weights
        wa, wb, w2a, w2b, w2aa, w2bb, w2ab = self._sums
        delta = wa / total  # (C,)
        var = np.maximum(wb / total - delta**2, 0)
        e = var - delta**2
        spread_mean = w2aa - 2 * delta * w2a + delta**2 * total2
        spread_var = w2bb + 4 * delta**2 * w2aa + e**2 * total2
        spread_var = spread_var - 4 * delta * w2ab - 2 * e * w2b + 4 * delta * e * w2a
        correction = self.samples / (self.samples - 1) if self.samples > 1 else math.nan
        mean_var = np.maximum(spread_mean, 0) / total**2 * correction  # squared standard errors
        var_var = np.maximum(spread_var, 0) / total**2 * correction
        independent = total**2 / total2
        return Statistics(
            mean=array(self.centre) + delta,
            var=var,
            mean_error=np.sqrt(mean_var),
            var_error=np.sqrt(var_var),
            samples=self.samples,
            values=self.values,
            sample_mean_var=mean_var * independent,
            sample_var_var=var_var * independent,
        )
