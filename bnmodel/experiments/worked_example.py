"""Batch normalisation computed step by step: one digit, one layer, one channel, one pixel.

    x → x − μ → x̂ = (x − μ) / √(σ² + ε) → y = γ · x̂ + β

once with the statistics of the batch (train mode) and once with the running ones (eval mode), from the same input x.
`groupings` repeats the computation with the means and variances of layer, instance and group normalisation (Wu & He
2018, arXiv 1803.08494, figure 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.experiments.batch_statistics import named_norm, norm_inputs, with_batch_statistics
from bnmodel.experiments.cache import cache_by_content

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = 4  # of group normalisation; reduced to a divisor of the channels
BINS = 40


@dataclass(frozen=True)
class Step:
    """One pixel under one pair of statistics."""

    mean: float
    var: float  # biased for a batch, as in training; unbiased for the running one, as stored
    centred: float  # x − μ
    normalized: float  # x̂
    output: float  # y
    normalized_map: np.ndarray = field(repr=False)  # (H, W) x̂ of the digit
    output_map: np.ndarray = field(repr=False)  # (H, W) y of the digit


@dataclass(frozen=True)
class Grouping:
    """The same pixel under one kind of normalisation."""

    name: str
    values: int  # number of values that mean and variance are taken over
    mean: float
    var: float
    normalized: float  # x̂ in this batch
    alone: float  # x̂ if the digit were alone in its batch, with the same input


@dataclass(frozen=True)
class WorkedExample:
    """All quantities that determine one output of a batch norm. The digit is the first of the batch."""

    norm: str
    channels: int  # of the norm
    channel: int
    row: int
    column: int
    gamma: float
    beta: float
    eps: float
    x: np.ndarray = field(repr=False)  # (N, H, W) input of the channel, for each digit of the batch
    batch: Step
    running: Step
    groupings: tuple[Grouping, ...]

    @property
    def value(self) -> float:
        """x at the pixel."""
        return float(self.x[0, self.row, self.column])


def run(
    model: nn.Module,
    digit: Tensor,
    others: Tensor,
    norm: str | None = None,
    channel: int | None = None,
    pixel: int | None = None,
    gamma: float | None = None,
    beta: float | None = None,
    eps: float | None = None,
) -> WorkedExample:
    """Follow one pixel of `digit` (28, 28) among `others` (N, 1, 28, 28) through one batch norm.

    Args:
        norm: its name; the first by default.
        channel: by default the one whose batch mean is furthest from the running mean, in running deviations.
        pixel: row · W + column; by default the input of the channel that is furthest from 0.
        gamma, beta, eps: by default the network's.

    Raises:
        ValueError: no such norm, channel or pixel, or eps ≤ 0.
    """
    norm, layer = named_norm(model, norm)
    inputs = layer_inputs(model, digit, others)[norm]  # (N, C, …)
    inputs = inputs.reshape(*inputs.shape[:2], *(inputs.shape[2:] or (1, 1)))  # a dense layer has one position
    assert layer.running_mean is not None
    assert layer.running_var is not None
    if channel is None:
        channel = most_shifted(inputs, layer.running_mean, layer.running_var)
    _check(channel=(channel, inputs.size(1)))
    x = inputs[:, channel].double()  # (N, H, W)
    pixel = int(x[0].abs().argmax()) if pixel is None else pixel
    _check(pixel=(pixel, x[0].numel()))
    row, column = divmod(pixel, x.size(2))
    if gamma is None:
        gamma = 1.0 if layer.gamma is None else float(layer.gamma.detach()[channel])
    if beta is None:
        beta = 0.0 if layer.beta is None else float(layer.beta.detach()[channel])
    eps = layer.eps if eps is None else eps
    if not eps > 0:
        raise ValueError(f"eps: expected a number > 0, received {eps}")
    batch = float(x.mean()), float(x.var(correction=0))
    running = float(layer.running_mean[channel]), float(layer.running_var[channel])
    first = x[0].numpy()
    return WorkedExample(
        norm,
        inputs.size(1),
        channel,
        row,
        column,
        gamma,
        beta,
        eps,
        x.float().numpy(),
        _step(first, row, column, *batch, gamma, beta, eps),
        _step(first, row, column, *running, gamma, beta, eps),
        groupings(inputs, channel, row, column, eps),
    )


@cache_by_content(8)  # 4 MB each, for robust
@torch.no_grad()
def layer_inputs(model: nn.Module, digit: Tensor, others: Tensor) -> dict[str, Tensor]:
    """The input of every norm in train mode, by name: (1 + N, C, …), the digit first."""
    return norm_inputs(with_batch_statistics(model), torch.cat((digit.view(1, 1, 28, 28), others)))[1]


def most_shifted(inputs: Tensor, running_mean: Tensor, running_var: Tensor) -> int:
    """The channel of (N, C, H, W) whose mean is furthest from the running one, in running standard deviations."""
    shift = inputs.mean((0, 2, 3)) - running_mean
    return int((shift.abs() / running_var.sqrt().clamp(min=1e-3)).argmax())


def groupings(
    inputs: Tensor, channel: int, row: int, column: int, eps: float, groups: int = GROUPS
) -> tuple[Grouping, ...]:
    """The pixel of the first digit of (N, C, H, W) under batch, layer, instance and group normalisation."""
    channels = inputs.size(1)
    size = channels // math.gcd(channels, groups)
    first = channel // size * size
    shared = {
        "BatchNorm": inputs[:, channel],
        "LayerNorm": inputs[0],
        "InstanceNorm": inputs[0, channel],
        "GroupNorm": inputs[0, first : first + size],
    }
    x = float(inputs[0, channel, row, column])
    found = []
    for name, values in shared.items():
        alone = inputs[0, channel] if name == "BatchNorm" else values
        mean, var = float(values.double().mean()), float(values.double().var(correction=0))
        mean_alone, var_alone = float(alone.double().mean()), float(alone.double().var(correction=0))
        found.append(
            Grouping(
                name,
                values.numel(),
                mean,
                var,
                (x - mean) / math.sqrt(var + eps),
                (x - mean_alone) / math.sqrt(var_alone + eps),
            )
        )
    return tuple(found)


def _step(x: np.ndarray, row: int, column: int, mean: float, var: float, gamma: float, beta: float, eps: float) -> Step:
    """Normalise `x`, (H, W), and pick the pixel."""
    normalized = (x - mean) / math.sqrt(var + eps)
    output = gamma * normalized + beta
    at = row, column
    return Step(mean, var, float(x[at] - mean), float(normalized[at]), float(output[at]), normalized, output)


def _check(**numbers: tuple[int, int]) -> None:
    for name, (value, count) in numbers.items():
        if not 0 <= value < count:
            raise ValueError(f"{name}: expected 0 … {count - 1}, received {value}")


@plotting.plot_style()
def figure(result: WorkedExample) -> Figure:
    """The channel's values in the batch with both means, and y against x, a line for each pair of statistics."""
    drawn, (values, line) = plotting.new_figure(columns=2, width=7.6, height=3.2)
    counts, edges = np.histogram(result.x, BINS)
    filled: dict[str, Any] = {"color": plotting.INK, "alpha": 0.25, "linewidth": 0}
    plotting.stairs(values, counts, edges, fill=True, label="values x in the batch", **filled)
    for step, height, color, dashes, label in _styles(result):
        spread, at = math.sqrt(step.var), height * float(counts.max())
        values.plot([step.mean - spread, step.mean + spread], [at, at], dashes, color=color, label=label)
        values.plot([step.mean], [at], "s" if dashes == "--" else "o", color=color, markersize=6)
    values.axvline(result.value, color=plotting.INK, linestyle=":", linewidth=1.2, label="x of this pixel")
    values.set(title="values of the channel, and μ ± σ", xlabel="x, input of the norm", ylabel="number (log)")
    values.set(yscale="log", ylim=(0.7, 20 * float(counts.max())))
    values.minorticks_off()
    values.yaxis.set_major_formatter("{x:g}")
    plotting.legend(drawn, values)
    _line(line, result, (float(edges[0]), float(edges[-1])))
    return drawn


def _styles(result: WorkedExample) -> list[tuple[Step, float, str, str, str]]:
    return [
        (result.batch, 2, plotting.TRAIN, "--", "train mode, this batch"),
        (result.running, 6, plotting.EVAL, "-", "eval mode, running statistics"),
    ]


def _line(axes: Axes, result: WorkedExample, ends: tuple[float, float]) -> None:
    """y(x), a straight line per pair of statistics."""
    for step, _, color, dashes, label in _styles(result):
        y = [result.gamma * (x - step.mean) / math.sqrt(step.var + result.eps) + result.beta for x in ends]
        axes.plot(ends, y, dashes, color=color, label=label)
        axes.plot([result.value], [step.output], "s" if dashes == "--" else "o", color=color, markersize=7)
    axes.axvline(result.value, color=plotting.INK, linestyle=":", linewidth=1.2)
    axes.set(title="output against input", xlabel="x, input of the norm", ylabel="y, its output")
