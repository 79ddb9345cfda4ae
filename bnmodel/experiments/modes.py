"""Eval and train mode compared: one digit, one network, two sets of statistics.

In eval mode batch norm uses the running statistics, and the answer depends on the digit alone. In train mode it uses
batch statistics, so the answer depends on the rest of the batch. Dropout is off in both, to isolate batch norm.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.experiments.batch_statistics import custom_batchnorms, norm_inputs, with_batch_statistics
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.nn.batchnorm import batch_norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CHANNELS = (10, 8, 6)  # in a panel of statistics, for channel numbers of one, two and three digits
MOST_MAPS = 20  # in a row of feature maps


@dataclass(frozen=True)
class NormView:
    """One batch norm in both modes: statistics (C,), and the digit's feature maps (C, H, W)."""

    name: str
    running_mean: np.ndarray
    running_std: np.ndarray
    batch_mean: np.ndarray
    batch_std: np.ndarray
    eval_input: np.ndarray
    eval_output: np.ndarray
    train_input: np.ndarray
    train_output: np.ndarray


@dataclass(frozen=True)
class Modes:
    """The same digit in eval mode, and in train mode among other digits."""

    digit: np.ndarray  # (28, 28)
    others: np.ndarray  # (count, 28, 28)
    eval_probabilities: np.ndarray  # (10,)
    train_probabilities: np.ndarray  # (10,)
    norms: tuple[NormView, ...]


def train_probabilities(model: nn.Module, digit: Tensor, others: Tensor) -> np.ndarray:
    """Probabilities (10,) of `digit` in train mode, the same as from `compare`."""
    batch = torch.cat((digit.view(1, 1, 28, 28), others))
    with torch.inference_mode(), QuickPooling():
        return _array(with_batch_statistics(model)(batch)[0].exp())


@torch.no_grad()
def compare(model: nn.Module, digit: Tensor, others: Tensor) -> Modes:
    """Predict `digit`, float32 (28, 28) in [0, 1], in eval mode, and in train mode among `others` (N, 1, 28, 28)."""
    batch = torch.cat((digit.view(1, 1, 28, 28), others))
    eval_log_probs, eval_inputs = norm_inputs(copy.deepcopy(model).eval(), batch[:1])
    train_log_probs, train_inputs = norm_inputs(with_batch_statistics(model), batch)
    norms = []
    for name, norm in custom_batchnorms(model).items():
        output, mean, var = batch_norm(train_inputs[name], norm.gamma, norm.beta, eps=norm.eps)
        eval_output, running_mean, running_var = batch_norm(
            eval_inputs[name], norm.gamma, norm.beta, norm.running_mean, norm.running_var, norm.eps
        )
        norms.append(
            NormView(
                name,
                *(_array(v) for v in (running_mean, running_var.sqrt(), mean, var.sqrt())),
                *(_array(v[0]) for v in (eval_inputs[name], eval_output, train_inputs[name], output)),
            )
        )
    return Modes(
        _array(digit),
        _array(others[:, 0]),
        _array(eval_log_probs[0].exp()),
        _array(train_log_probs[0].exp()),
        tuple(norms),
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def shifts(view: NormView) -> np.ndarray:
    """Distance of each batch mean from the running mean, (C,), in running standard deviations of at least 0.001."""
    shifted: np.ndarray = (view.batch_mean - view.running_mean) / np.maximum(view.running_std, 1e-3)
    return shifted


def most_shifted(view: NormView, count: int) -> np.ndarray:
    """The `count` channels whose batch means are furthest from the running means, the furthest first."""
    return np.argsort(-np.abs(shifts(view)), kind="stable")[:count]


@plotting.plot_style()
def figure(result: Modes) -> Figure:
    """A row per norm: its most shifted channels, and the digit before and after it."""
    drawn, panels = plotting.new_figure(
        columns=3, rows=max(1, len(result.norms)), width=9, height=2.6 * max(1, len(result.norms))
    )
    for row, view in enumerate(result.norms):
        statistics, before, after = panels[3 * row : 3 * row + 3]
        _statistics(statistics, view)
        _outlines(before, view.eval_input, view.train_input)
        before.set(title="your digit before the norm", xlabel="activation")
        _outlines(after, view.eval_output, view.train_output)
        after.set(title="your digit after the norm", xlabel="activation")
    if result.norms:
        plotting.legend(drawn, *panels[:3])
    return drawn


def _statistics(axes: Axes, view: NormView) -> None:
    """Mean ± standard deviation of the most shifted channels, relative to the running mean and deviation."""
    digits = len(str(len(view.running_mean) - 1))
    channels = most_shifted(view, MOST_CHANNELS[min(digits, len(MOST_CHANNELS)) - 1])
    spread = np.maximum(view.running_std, 1e-3)[channels]
    positions = np.arange(len(channels))
    for mean, std, offset, color, marker, label in (
        (0 * spread, 0 * spread + 1, -0.15, plotting.EVAL, "o", "eval mode, running statistics"),
        (
            shifts(view)[channels],
            view.batch_std[channels] / spread,
            0.15,
            plotting.TRAIN,
            "s",
            "train mode, this batch",
        ),
    ):
        style: dict[str, Any] = {"fmt": marker, "color": color, "markersize": 4, "elinewidth": 1.5, "label": label}
        axes.errorbar(positions + offset, mean, std, **style)
    axes.set(title=f"{view.name}: mean ± σ", xlabel="channel, the most shifted first", ylabel="in running σ")
    plotting.ticks(axes.xaxis, positions.tolist(), [str(channel) for channel in channels])


def _outlines(axes: Axes, eval_values: np.ndarray, train_values: np.ndarray) -> None:
    both = np.concatenate((eval_values.ravel(), train_values.ravel()))
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-3), 41)
    for values, color, look, label in (
        (eval_values, plotting.EVAL, "-", "eval mode, running statistics"),
        (train_values, plotting.TRAIN, "--", "train mode, this batch"),
    ):
        counts = np.histogram(values, edges)[0]
        plotting.stairs(axes, counts, edges, color=color, linestyle=look, linewidth=1.6, label=label)
    axes.set(ylabel="activations (log)", yscale="log", ylim=(0.7, None))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")  # mathtext is slow


@plotting.plot_style()
def feature_maps(result: Modes, norm: int = -1) -> Figure:
    """The digit after one norm: up to MOST_MAPS channels in eval mode (above) and train mode (below), on one scale."""
    view = result.norms[norm]
    shown = sorted(most_shifted(view, MOST_MAPS).tolist())
    drawn, panels = plotting.new_figure(columns=len(shown), rows=2, width=11, height=11 / len(shown) * 2 + 0.7)
    limit = float(np.abs(np.concatenate((view.eval_output.ravel(), view.train_output.ravel()))).max())
    for row, (maps, label) in enumerate(((view.eval_output, "eval"), (view.train_output, "train"))):
        for column, channel in enumerate(shown):
            axes = panels[row * len(shown) + column]
            axes.imshow(maps[channel], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            if row == 0:
                axes.set_title(str(channel), loc="center", fontsize=8)
        panels[row * len(shown)].set_ylabel(label, color=(plotting.EVAL, plotting.TRAIN)[row])
    drawn.suptitle(f"{view.name}: output per channel", fontsize=11, color=plotting.INK)
    return drawn
