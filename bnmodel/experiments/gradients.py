"""Gradients of SimpleCNN without batch norm, with it before and with it after the activation.

Weights and batches are the same and dropout is off, so batch norm is the only difference. The experiment computes the
distribution of the gradients per layer and, along the gradient step, the loss and the change of the gradient
‖∇L(θ) − ∇L(θ − η∇L(θ))‖₂. Santurkar et al. (2018, arXiv 1805.11604) call this change gradient predictiveness, and argue
that batch norm helps by smoothing the loss, not by reducing “internal covariate shift”.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnmodel import plotting
from bnmodel.data import Digits, load_sample
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.nn.init import initialize
from bnmodel.nn.models import SimpleCNN, SimpleCNNConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POSITIONS = ("none", "before", "after")  # of the batch norm
LAYERS = ("block1.conv", "block2.conv", "dense1", "dense2")
QUANTILES = (0.05, 0.5, 0.95)
ALONG = (0.5, 1.0, 2.0, 4.0)  # lengths of the step, as multiples of the learning rate
EDGES = np.linspace(-10, 2, 49)  # of the bins: log10 of the gradient's magnitude
MOST_STEPS = 20


@dataclass(frozen=True)
class Gradients:
    """Gradients of the weights after some SGD steps; the first axis is that of `positions` of batch norm."""

    initializer: str
    steps: int
    positions: tuple[str, ...]
    layers: tuple[str, ...]
    edges: np.ndarray  # (B + 1,) log10 |gradient|
    shares: np.ndarray  # (3, 4, B) share of a layer's gradients per bin; the outermost bins include all beyond
    zero: np.ndarray  # (3, 4) share of gradients that are exactly 0, which are in no bin
    quantiles: np.ndarray  # (3, 4, 3): 5%, 50%, 95% of the magnitudes
    losses: np.ndarray  # (3, steps + 1) of the batches, in nats
    norm: np.ndarray  # (3,) ‖∇L‖₂ of all parameters
    rates: np.ndarray  # (S,) step sizes η along −∇L, from 0 on
    loss_along: np.ndarray  # (3, S)
    change: np.ndarray  # (3, S) ‖∇L(θ) − ∇L(θ − η∇L(θ))‖₂


def run(
    initializer: str = "he_normal",
    steps: int = 0,
    rate: float = 0.1,
    batch_size: int = 64,
    std: float = 0.1,
    seed: int = 0,
) -> Gradients:
    """Take `steps` SGD steps at learning rate `rate` from the same weights, and evaluate the gradients there.

    Args:
        initializer: a name in INITIALIZERS; biases start at 0.
        std: standard deviation for random_normal.
        batch_size: digits of the sample per batch, 2 … 1000.

    Raises:
        ValueError: an unknown initialiser, or a number outside its bounds.
    """
    for name, good, expected, value in (
        ("steps", 0 <= steps <= MOST_STEPS, f"0 … {MOST_STEPS}", steps),
        ("rate", rate > 0, "a number > 0", rate),
        ("batch_size", 2 <= batch_size <= 1000, "2 … 1000", batch_size),
    ):
        if not good:
            raise ValueError(f"{name}: expected {expected}, received {value}")
    own_std = std if initializer == "random_normal" else 0.1
    batch = _batches(steps + 1, batch_size, seed)[-1]
    looks = [
        _measure(position, *_trained(position, steps, initializer, rate, batch_size, own_std, seed), batch, rate)
        for position in POSITIONS
    ]
    shares, zero, quantiles, losses, norm, loss_along, change = map(np.array, zip(*looks, strict=True))
    rates = rate * np.array((0.0, *ALONG))
    return Gradients(
        initializer, steps, POSITIONS, LAYERS, EDGES, shares, zero, quantiles, losses, norm, rates, loss_along, change
    )


def networks(initializer: str = "he_normal", std: float = 0.1, seed: int = 0) -> list[SimpleCNN]:
    """One network per position, in train mode, with the same weights; γ is 1, biases and β are 0."""
    return [_network(position, initializer, std, seed) for position in POSITIONS]


def _network(position: str, initializer: str, std: float, seed: int) -> SimpleCNN:
    model = _blank(position)
    generator = Generator().manual_seed(seed)
    options = {"std": std} if initializer == "random_normal" else {}
    for name in LAYERS:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        initialize(layer.weight, initializer, generator, **options)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return model


def _blank(position: str) -> SimpleCNN:
    """A network with uninitialised weights; creating it does not use the global random state."""
    with torch.device("meta"):
        model = SimpleCNN(SimpleCNNConfig(norm=position, dropout=0.0))
    model.to_empty(device="cpu")
    for norm in custom_batchnorms(model).values():
        norm.reset_parameters()
    return model.train()


@lru_cache(maxsize=128)  # 100 KB each; moving a slider by one step then costs one SGD step
def _trained(
    position: str, steps: int, initializer: str, rate: float, batch_size: int, std: float, seed: int
) -> tuple[list[Tensor], list[float]]:
    """The weights after `steps` steps, and the losses of the batches. Do not modify them: they are cached."""
    if steps == 0:
        return _weights(_network(position, initializer, std, seed)), []
    weights, losses = _trained(position, steps - 1, initializer, rate, batch_size, std, seed)
    model = _blank(position)
    _set(model, weights)
    loss, gradient = gradients_of(model, _batches(steps, batch_size, seed)[-1])
    return [p - rate * g for p, g in zip(weights, gradient, strict=True)], [*losses, loss]


def gradients_of(model: SimpleCNN, batch: Digits) -> tuple[float, list[Tensor]]:
    """The mean NLL loss of a batch in nats, and its gradient for every parameter."""
    with QuickPooling():
        loss = F.nll_loss(model(batch.images), batch.labels)
    return float(loss.detach()), list(torch.autograd.grad(loss, list(model.parameters())))


def along_the_step(
    model: SimpleCNN, batch: Digits, gradient: Sequence[Tensor], rates: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The loss at θ − η · `gradient` for each η in `rates`, and the distance of the gradient there from `gradient`."""
    start = _weights(model)
    losses, changes = [], []
    for rate in rates:
        _set(model, [p - rate * g for p, g in zip(start, gradient, strict=True)])
        loss, there = gradients_of(model, batch)
        losses.append(loss)
        changes.append(_l2([a - b for a, b in zip(there, gradient, strict=True)]))
    _set(model, start)
    return losses, changes


def _measure(
    position: str, weights: list[Tensor], losses: list[float], batch: Digits, rate: float
) -> tuple[object, ...]:
    """The gradients on `batch` of a network with these weights."""
    model = _blank(position)
    _set(model, weights)
    loss, gradient = gradients_of(model, batch)
    named = dict(zip(dict(model.named_parameters()), gradient, strict=True))
    magnitudes = [named[f"{layer}.weight"].abs().flatten().double().numpy() for layer in LAYERS]
    along, change = along_the_step(model, batch, gradient, [rate * share for share in ALONG])
    return (
        [_shares(values) for values in magnitudes],
        [float((values == 0).mean()) for values in magnitudes],
        [np.quantile(values, QUANTILES) for values in magnitudes],
        [*losses, loss],
        _l2(gradient),
        [loss, *along],
        [0.0, *change],
    )


def _batches(count: int, size: int, seed: int) -> list[Digits]:
    """`count` batches of the sample's training digits, without repetition within an epoch."""
    pool = load_sample(train=True)
    generator = Generator().manual_seed(seed)
    rounds = -(-count * size // len(pool))
    order = torch.cat([torch.randperm(len(pool), generator=generator) for _ in range(rounds)])
    return [pool[order[k * size : (k + 1) * size]] for k in range(count)]


def _shares(magnitudes: np.ndarray) -> np.ndarray:
    """(B,)"""
    logs = np.log10(magnitudes[magnitudes > 0])
    return np.histogram(np.clip(logs, EDGES[0], EDGES[-1]), EDGES)[0] / len(magnitudes)


def _weights(model: SimpleCNN) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def _set(model: SimpleCNN, values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def _l2(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())


STYLES = {  # position → colour, line style, label
    "none": (plotting.INK, ":", "no batch norm"),
    "before": (plotting.OLIVE, "--", "before the activation"),
    "after": (plotting.ROSE, "-", "after the activation"),
}


@plotting.plot_style()
def figure(result: Gradients) -> Figure:
    """Histograms and quantiles per layer, and loss and change of the gradient along the step."""
    drawn, panels = plotting.new_figure(columns=3, rows=2, width=9.6, height=5.6)
    powers = range(-8, 4, 2)
    top = 1.25 * max(float(result.shares.max()), 0.04)
    for column, (axes, layer) in enumerate(zip(panels[:4], result.layers, strict=True)):
        for row, position in enumerate(result.positions):
            _histogram(axes, result, row, column, top * (1.05 + 0.09 * row), STYLES[position])
        axes.set(title=layer, xlabel="size of the gradient (log)", xlim=(-8, 2), ylim=(0, 1.35 * top))
        axes.set_ylabel("share of the weights")
        plotting.ticks(axes.xaxis, powers, plotting.powers_of_ten(powers))
    for axes, values, name, unit in (
        (panels[4], result.change, "gradient's change", "length of the change"),
        (panels[5], result.loss_along, "loss", "loss (nats)"),
    ):
        for position, curve in zip(result.positions, values, strict=True):
            color, line, label = STYLES[position]
            axes.plot(result.rates, curve, line, color=color, marker="o", markersize=3, label=label)
        axes.set(title=f"{name} along the step", xlabel="step size η", ylabel=unit)
    plotting.legend(drawn, panels[0])
    return drawn


def _histogram(axes: Axes, result: Gradients, row: int, column: int, height: float, look: tuple[str, str, str]) -> None:
    """A histogram outline, and above it the median as a dot on a line from 5 to 95%."""
    color, line, label = look
    plotting.stairs(
        axes, result.shares[row, column], result.edges, color=color, linestyle=line, linewidth=1.6, label=label
    )
    low, median, high = np.log10(np.maximum(result.quantiles[row, column], 1e-12))
    axes.plot([low, high], [height, height], line, color=color)
    axes.plot(median, height, "o", color=color, markersize=5)
