"""Eval and train mode compared: one digit, one network, two sets of statistics.

In eval mode batch norm uses the running statistics, and the answer depends on the digit alone. In train mode it uses
batch statistics, so the answer depends on the rest of the batch. Dropout is off in both, to isolate batch norm.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.data import Digits, load_sample
from bnmodel.experiments.blur import gaussian_blur
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.nn.batchnorm import CustomBatchNorm, batch_norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPANY = ("random", "one class", "copies", "blurred", "inverted", "blank", "noise")
MAX_COMPANIONS = 255
MOST_CHANNELS = 10  # in a picture of a norm's statistics
MOST_OF_HUNDREDS = 6  # where their numbers have three digits, which take more room
MOST_MAPS = 20  # in a row of feature maps


@dataclass(frozen=True)
class Company:
    """Which other digits share the batch: the arguments of `companions`."""

    kind: str = "random"
    count: int = 31
    label: int | None = None
    seed: int = 0


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
    company: np.ndarray  # (count, 28, 28)
    eval_probabilities: np.ndarray  # (10,)
    train_probabilities: np.ndarray  # (10,)
    norms: tuple[NormView, ...]


def companions(kind: str, count: int, seed: int, digit: Tensor, label: int | None = None) -> Tensor:
    """Draw the other images of the batch of `digit`, float32 (28, 28), from the shipped training sample.

    Args:
        kind: one of COMPANY. "one class": digits of `label`; "inverted", "blurred": random digits so changed;
            "blank": empty sheets.
        count: 0 … 255.
        seed: the same seed gives the same images.

    Returns:
        float32 (count, 1, 28, 28) in [0, 1].
    """
    if kind not in COMPANY:
        raise ValueError(f"company: expected one of {', '.join(COMPANY)}, received {kind!r}")
    if not 0 <= count <= MAX_COMPANIONS:
        raise ValueError(f"companions: expected 0 … {MAX_COMPANIONS}, received {count}")
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
            raise ValueError(f"label: expected a digit 0 … 9 for company of one class, received {label}")
        pool = pool[pool.labels == label]
    images = _draw(pool, count, generator)
    if kind == "inverted":
        return 1 - images
    return gaussian_blur(images, 9, 2.5) if kind == "blurred" and count else images


CLASSES = [("one class", label) for label in range(10)]
OTHER_KINDS = [("random", None), ("blurred", None), ("blank", None), ("inverted", None), ("noise", None)]
# Tried in turn, the cheapest first: a test digit takes robust 10 ms at the first stage, 100 ms through all of them
TRIED = (
    (CLASSES, 1),
    (CLASSES, 7),
    (OTHER_KINDS, 7),
    (OTHER_KINDS, 31),
)
CLEAR = 0.3  # probability of the other answer from which the search ends


@cache_by_content(64)
def most_telling(model: nn.Module, digit: Tensor, seed: int = 0) -> tuple[Company, bool]:
    """The company that changes the train-mode answer to `digit` (28, 28), and whether one of those tried does.

    The first that gives another answer with a probability of CLEAR or more; else the most probable other answer; where
    no answer changes, the company that takes most from the probability of eval mode's answer.
    """
    with torch.inference_mode():
        label = int(model(digit.view(1, 1, 28, 28)).argmax())
    closest, least = Company("one class", 7, 0, seed), 2.0
    flipped: tuple[Company, float] | None = None
    for kinds, count in TRIED:
        companies = [Company(kind, count, of_class, seed) for kind, of_class in kinds]
        probabilities = _in_each(model, digit, companies)  # (K, 10)
        others = probabilities.clone()
        others[:, label] = -1
        best = others.max(1).values
        best[best <= probabilities[:, label]] = 0  # eval mode's answer stays
        if float(best.max()) > (flipped[1] if flipped else 0.0):
            flipped = companies[int(best.argmax())], float(best.max())
        if flipped and flipped[1] >= CLEAR:
            break
        own = probabilities[:, label]
        if float(own.min()) < least:
            closest, least = companies[int(own.argmin())], float(own.min())
    return (flipped[0], True) if flipped else (closest, False)


def _in_each(model: nn.Module, digit: Tensor, companies: Sequence[Company]) -> Tensor:
    """(K, 10): train-mode probabilities of `digit` in each of K companies of equal size."""
    own = digit.view(1, 1, 28, 28)
    batches = [torch.cat((own, companions(c.kind, c.count, c.seed, digit, c.label))) for c in companies]
    with torch.inference_mode(), QuickPooling():
        log_probs = with_batch_statistics(model, len(batches))(torch.cat(batches))
    probabilities: Tensor = log_probs.unflatten(0, (len(batches), -1))[:, 0].exp()
    return probabilities


def train_probabilities(model: nn.Module, digit: Tensor, company: Tensor) -> np.ndarray:
    """(10,): what `compare` finds in train mode, without the views of the norms."""
    batch = torch.cat((digit.view(1, 1, 28, 28), company))
    with torch.inference_mode(), QuickPooling():
        return _array(with_batch_statistics(model)(batch)[0].exp())


@torch.no_grad()
def compare(model: nn.Module, digit: Tensor, company: Tensor) -> Modes:
    """Predict `digit`, float32 (28, 28) in [0, 1], in eval mode, and in train mode among `company` (N, 1, 28, 28)."""
    batch = torch.cat((digit.view(1, 1, 28, 28), company))
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
        _array(company[:, 0]),
        _array(eval_log_probs[0].exp()),
        _array(train_log_probs[0].exp()),
        tuple(norms),
    )


def custom_batchnorms(model: nn.Module) -> dict[str, CustomBatchNorm]:
    """The batch norms of `model`, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CustomBatchNorm)}


def with_batch_statistics(model: nn.Module, batches: int = 1) -> nn.Module:
    """A copy of `model` in eval mode whose batch norms use batch statistics.

    Args:
        batches: the input is the concatenation of this many batches of equal size, each with its own statistics.
    """
    changed = copy.deepcopy(model).eval()
    for name, norm in custom_batchnorms(changed).items():
        changed.set_submodule(name, _BatchStatistics(norm, batches))
    return changed


def unbiased_statistics(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and unbiased variances, (batches, C) each, of the last call of a network of `with_batch_statistics`."""
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, _BatchStatistics)}
    return {name: (norm.mean, norm.var * (norm.count / (norm.count - 1))) for name, norm in norms.items()}


class _BatchStatistics(nn.Module):
    """After a call: `mean` and biased `var`, (batches, C), and the `count` of values per batch and channel."""

    mean: Tensor
    var: Tensor
    count: int

    def __init__(self, norm: CustomBatchNorm, batches: int) -> None:
        super().__init__()
        self.gamma, self.beta, self.eps, self.batches = norm.gamma, norm.beta, norm.eps, batches

    def forward(self, x: Tensor) -> Tensor:
        if self.batches == 1:
            y, mean, var = batch_norm(x, self.gamma, self.beta, eps=self.eps)
            self.mean, self.var, self.count = mean[None], var[None], x.numel() // x.size(1)
            return y
        # `batch_norm` with an axis for the batch, without a copy to (N, B·C, …): (B·N, C, H·W) → (B, N, C, H·W)
        batches = (x if x.dim() > 2 else x[:, :, None]).unflatten(0, (self.batches, -1)).flatten(3)
        count, norm = batches.size(1) * batches.size(3), torch.linalg.vector_norm
        mean = batches.sum(3, keepdim=True).sum(1, keepdim=True) / count  # (B, 1, C, 1)
        centred = batches - mean
        var = norm(norm(centred, dim=3, keepdim=True), dim=1, keepdim=True).square() / count
        self.mean, self.var, self.count = mean.flatten(1), var.flatten(1), count
        scale = torch.rsqrt(var + self.eps)
        if self.gamma is not None:
            scale = scale * self.gamma[:, None]
        shift = torch.zeros_like(scale) if self.beta is None else self.beta[:, None]
        return torch.addcmul(shift, centred, scale, out=centred).view_as(x)


def norm_inputs(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities (N, 10), and the input of each batch norm by name. Registers hooks: pass a private copy."""
    inputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, (CustomBatchNorm, _BatchStatistics)):
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0]))
    return model(images), inputs


def _draw(pool: Digits, count: int, generator: torch.Generator) -> Tensor:
    """`count` images of `pool`, without repetition while there are enough."""
    rounds = -(-count // len(pool))
    order = torch.cat([torch.randperm(len(pool), generator=generator) for _ in range(rounds)] or [torch.arange(0)])
    return pool.images[order[:count]]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def shifts(view: NormView) -> np.ndarray:
    """(C,): how far each batch mean is from the running one, in running standard deviations (of 0.001 at least)."""
    shifted: np.ndarray = (view.batch_mean - view.running_mean) / np.maximum(view.running_std, 1e-3)
    return shifted


def most_shifted(view: NormView, count: int) -> np.ndarray:
    """The `count` channels whose means are furthest from the running ones, the furthest first."""
    return np.argsort(-np.abs(shifts(view)), kind="stable")[:count]


@plotting.plot_style()
def figure(result: Modes) -> Figure:
    """Why the modes differ: a row per norm, its most shifted channels and the digit before and after it."""
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
    for axes in panels[:3]:  # the first row only
        axes.legend()
    return drawn


def _statistics(axes: Axes, view: NormView) -> None:
    """Mean ± standard deviation of the most shifted channels, where the running mean is 0 and its deviation 1."""
    channels = most_shifted(view, MOST_CHANNELS if len(view.running_mean) <= 100 else MOST_OF_HUNDREDS)
    spread = np.maximum(view.running_std, 1e-3)[channels]
    places = np.arange(len(channels))
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
        axes.errorbar(places + offset, mean, std, **style)
    axes.set(title=f"{view.name}: mean ± σ", xlabel="channel, the most shifted first", ylabel="in running deviations σ")
    plotting.ticks(axes.xaxis, places.tolist(), [str(channel) for channel in channels])


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
    """The digit behind one norm, MOST_MAPS channels in eval mode (above) and in train mode (below), on one scale."""
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
    drawn.suptitle(f"{view.name}: what it passes on, channel by channel", fontsize=11, color=plotting.INK)
    return drawn
