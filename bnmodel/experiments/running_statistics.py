"""Four kinds of statistics for inference: of one batch, running average, cumulative average, precise statistics.

A running average with momentum m averages over about (2 − m)/m batches: a large m is noisy, a small one lags. Precise
statistics (Wu & Johnson 2021, arXiv 2105.07576, §3) are the mean and variance over many samples, computed norm after
norm. They depend on the samples, not on how these are split into batches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.data import load_sample
from bnmodel.experiments.batch_statistics import (
    custom_batchnorms,
    named_norm,
    unbiased_statistics,
    with_batch_statistics,
)
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.cost import CHUNK, accuracy, is_large, scored_digits
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.training.evaluation import predict_log_probs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T", float, Tensor)
Statistics = dict[str, tuple[Tensor, Tensor]]  # norm's name → mean (C,) and unbiased variance (C,)
RUN_ON = 20_000  # batches, enough to measure the noise for momentum 0.01, which averages over 199


@dataclass(frozen=True)
class Approach:
    """Convergence of a running average to the precise value, and its noise."""

    precise: float
    batch_spread: float  # σ, the standard deviation over single batches
    batches: int | None  # until it is first within σ of the precise value; None: never in this stream
    batches_expected: int | None  # by the decay of the initial value alone; None: never
    noise: float  # standard deviation of the average over many more batches
    noise_expected: float  # √(m / (2 − m)) · σ


@dataclass(frozen=True)
class RunningStatistics:
    """The statistics of one channel of one norm over a stream of batches, and their averages."""

    norm: str
    channel: int
    momentum: float
    batch_mean: np.ndarray  # (steps,)
    batch_std: np.ndarray  # (steps,)
    running_mean: np.ndarray  # (steps + 1,), starting at 0
    running_std: np.ndarray  # (steps + 1,), starting at 1
    cumulative_mean: np.ndarray  # (steps,)
    cumulative_std: np.ndarray  # (steps,)
    precise_mean: float
    precise_std: float
    effective_batches: float  # (2 − m)/m; infinite for m = 0
    mean: Approach
    variance: Approach
    accuracy: dict[str, float]  # on the shipped test sample, for each kind of statistics
    probabilities: dict[str, np.ndarray]  # (10,) of the digit, for each kind
    digits: int  # that accuracy is measured on


def run(
    model: nn.Module,
    digit: Tensor,
    momentum: float = 0.1,
    batch_size: int = 32,
    steps: int = 60,
    norm: str | None = None,
    channel: int = 0,
    seed: int = 0,
) -> RunningStatistics:
    """Follow `channel` of `norm` (by default the first) over `steps` batches of the training sample.

    Raises:
        ValueError: momentum outside [0, 1], or an unknown norm or channel.
    """
    norm, layer = named_norm(model, norm)
    if not 0 <= channel < layer.num_features:
        raise ValueError(f"channel: expected 0 … {layer.num_features - 1}, received {channel}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum: expected a number in [0, 1], received {momentum}")
    stream = batch_statistics(model, batch_size, steps, seed)
    mean, var = (values[:, channel].double() for values in stream[norm])  # (steps,)
    running = {name: running_average(values, momentum) for name, values in stream.items()}
    precise = precise_statistics(model, load_sample(train=True).images)
    kinds: dict[str, Statistics] = {
        "last batch": {name: (m[-1], v[-1]) for name, (m, v) in stream.items()},
        "running": {name: (m[-1], v[-1]) for name, (m, v) in running.items()},
        "cumulative": {name: (m.mean(0), v.mean(0)) for name, (m, v) in stream.items()},
        "precise": precise,
    }
    networks = {"checkpoint": model} | {kind: with_statistics(model, values) for kind, values in kinds.items()}
    running_mean, running_var = (values[:, channel].double() for values in running[norm])
    count = torch.arange(1, steps + 1)
    return RunningStatistics(
        norm,
        channel,
        momentum,
        mean.numpy(),
        var.sqrt().numpy(),
        running_mean.numpy(),
        running_var.sqrt().numpy(),
        (mean.cumsum(0) / count).numpy(),
        (var.cumsum(0) / count).sqrt().numpy(),
        float(precise[norm][0][channel]),
        float(precise[norm][1][channel].sqrt()),
        (2 - momentum) / momentum if momentum else math.inf,
        approach(mean.numpy(), running_mean.numpy(), float(precise[norm][0][channel]), momentum),
        approach(var.numpy(), running_var.numpy(), float(precise[norm][1][channel]), momentum),
        {kind: accuracy(network) for kind, network in networks.items()},
        {kind: predict_log_probs(net, digit.view(1, 1, 28, 28))[0].exp().numpy() for kind, net in networks.items()},
        len(scored_digits(model)),
    )


@cache_by_content(32)
def batch_statistics(model: nn.Module, batch_size: int, steps: int, seed: int) -> Statistics:
    """Batch means and unbiased variances of every norm over `steps` random batches, (steps, C) each."""
    pool = load_sample(train=True).images
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [torch.randperm(len(pool), generator=generator) for _ in range(-(-batch_size * steps // len(pool)))]
    )
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for chosen in order[: batch_size * steps].split(batch_size * max(1, CHUNK // batch_size)):
        network = with_batch_statistics(model, len(chosen) // batch_size)
        with torch.no_grad(), QuickPooling():
            network(pool[chosen])
        for name, part in unbiased_statistics(network).items():
            parts.setdefault(name, []).append(part)
    return {name: (torch.cat([m for m, _ in part]), torch.cat([v for _, v in part])) for name, part in parts.items()}


def running_average(stream: tuple[Tensor, Tensor], momentum: float) -> tuple[Tensor, Tensor]:
    """Running means and variances, starting at 0 and 1: (steps, C) → (steps + 1, C) each."""
    means, variances = (
        torch.stack(list(averages(values, momentum, torch.full_like(values[0], start))))
        for values, start in zip(stream, (0.0, 1.0), strict=True)
    )
    return means, variances


def averages(values: Iterable[T], momentum: float, start: T) -> Iterator[T]:
    """`start`, and the running average after each of the values."""
    return accumulate(values, lambda average, value: (1 - momentum) * average + momentum * value, initial=start)


def approach(batches: np.ndarray, running: np.ndarray, precise: float, momentum: float) -> Approach:
    """Compare a running average with the precise value.

    For independent batches, the variance of the average is m/(2 − m) times that of a batch, the sum of m²(1 − m)²ᵏ.

    Args:
        batches: a statistic of each batch, (steps,).
        running: its running average, (steps + 1,), including the initial value.
    """
    spread = float(batches.std(ddof=1))
    near = np.abs(running - precise) <= spread
    distance = abs(running[0] - precise)
    if distance <= spread:
        expected: int | None = 0
    elif 0 < momentum < 1 and spread:
        expected = math.ceil(math.log(spread / distance) / math.log(1 - momentum))
    else:
        expected = 1 if momentum == 1 else None
    return Approach(
        precise,
        spread,
        int(near.argmax()) if near.any() else None,
        expected,
        float(run_on(batches, precise, momentum).std()),
        math.sqrt(momentum / (2 - momentum)) * spread,
    )


def run_on(batches: np.ndarray, start: float, momentum: float) -> np.ndarray:
    """The running average (RUN_ON,) over many more batches, drawn with replacement from `batches`."""
    drawn = np.random.default_rng(0).choice(batches, RUN_ON).tolist()
    return np.fromiter(averages(drawn, momentum, start), float)[1:]


@cache_by_content(8)
@torch.no_grad()
def precise_statistics(model: nn.Module, images: Tensor, batch_size: int = 50) -> Statistics:
    """Mean and unbiased variance at every norm over all `images` (N, 1, 28, 28), norm after norm.

    In float64; the forward pass of a large network is in float32, which takes a quarter of the time.
    """
    network = copy.deepcopy(model).eval()
    images = images if is_large(model) else images.double()
    network.to(images.dtype)
    precise: Statistics = {}
    for name, norm in custom_batchnorms(network).items():  # in the order of the forward pass
        count, mean, squares = 0, torch.zeros(norm.num_features).double(), torch.zeros(norm.num_features).double()
        for batch in images.split(batch_size):
            x = _input_of(network, norm, batch).double().transpose(0, 1).flatten(1)  # (C, values)
            delta = x.mean(1) - mean  # combined as in Chan, Golub & LeVeque (1979), to avoid cancellation
            total = count + x.size(1)
            squares += x.var(1, correction=0) * x.size(1) + delta**2 * (count * x.size(1) / total)
            mean += delta * (x.size(1) / total)
            count = total
        var = squares / (count - 1)
        norm.running_mean, norm.running_var = mean.to(images.dtype), var.to(images.dtype)
        precise[name] = (mean.float(), var.float())
    return precise


class _StopForward(Exception):
    """Ends a forward pass at the norm whose input was requested."""


def _input_of(network: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    """The input of `norm` for `images`; the layers after it are not computed."""
    received = []

    def stop(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        received.append(args[0])
        raise _StopForward

    handle = norm.register_forward_pre_hook(stop)
    try:
        with QuickPooling():
            network(images)
    except _StopForward:
        pass
    finally:
        handle.remove()
    return received[0]


def with_statistics(model: nn.Module, statistics: Statistics) -> nn.Module:
    """A copy of `model` in eval mode with other running statistics."""
    changed = copy.deepcopy(model).eval()
    for name, (mean, var) in statistics.items():
        norm = custom_batchnorms(changed)[name]
        norm.running_mean, norm.running_var = mean.clone().float(), var.clone().float()
    return changed


@plotting.plot_style()
def figure(result: RunningStatistics, accuracy: bool = True) -> Figure:
    """Mean and standard deviation of the channel over the stream, and the accuracy for each kind of statistics."""
    columns = 3 if accuracy else 2
    drawn, (mean, std, *others) = plotting.new_figure(columns, width=3.8 * columns, height=3.2)
    for axes, title, batch, running, cumulative, precise in (
        (mean, "mean", result.batch_mean, result.running_mean, result.cumulative_mean, result.precise_mean),
        (std, "standard deviation", result.batch_std, result.running_std, result.cumulative_std, result.precise_std),
    ):
        steps = np.arange(1, len(batch) + 1)
        axes.plot(steps, batch, "s", color=plotting.TRAIN, markersize=3, label="each batch")
        axes.plot(np.arange(len(running)), running, color=plotting.EVAL, label=f"running, momentum {result.momentum:g}")
        axes.plot(steps, cumulative, "--", color=plotting.INK, linewidth=1.4, label="cumulative")
        axes.axhline(precise, color=plotting.INK, linestyle=":", label="precise")
        axes.set(title=f"{result.norm}, channel {result.channel}", xlabel="batches seen", ylabel=title)
    plotting.legend(drawn, mean)
    for axes in others:
        _accuracies(axes, result)
    return drawn


def _accuracies(axes: Axes, result: RunningStatistics) -> None:
    kinds = list(result.accuracy)
    shares = [result.accuracy[kind] for kind in kinds]
    colours = [plotting.TRAIN if kind == "last batch" else plotting.EVAL for kind in kinds]
    bars = axes.barh(kinds, shares, color=colours, label="accuracy")
    axes.bar_label(bars, [f" {100 * share:.1f}%" for share in shares], color=plotting.INK)
    axes.set(title=f"accuracy on {result.digits:,} test digits", xlim=(0, 1.18))
    axes.invert_yaxis()
    axes.grid(False)
