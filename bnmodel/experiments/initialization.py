"""Effect of an initialiser on one dense layer, and on a stack of thirty without and with batch norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from bnmodel import plotting
from bnmodel.experiments.signal_propagation import ACTIVATIONS, is_saturated, measure, propagate, theory
from bnmodel.nn.init import INITIALIZERS, initialize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = tuple(INITIALIZERS)
UNITS = 256  # outputs of the single layer
BINS = 48
NORMS = (False, True)
LIMITS = (1e-6, 1e6)  # limits of the figure; beyond them, values have exploded or vanished


@dataclass(frozen=True)
class Layer:
    """Histograms of a layer's inputs and outputs for the six initialisers, in the order of `initializers`."""

    activation: str
    initializers: tuple[str, ...]
    input_std: float
    output_std: np.ndarray  # (6,)
    theory_std: np.ndarray  # (6,), NaN if the mean of the weights is not 0
    saturated: np.ndarray  # (6,) share of the outputs
    edges: np.ndarray  # (6, B + 1) bin edges, over the range of each initialiser
    input_shares: np.ndarray  # (6, B) share of the inputs per bin
    output_shares: np.ndarray  # (6, B)


@dataclass(frozen=True)
class Stack:
    """Statistics per layer, without batch norm (index 0 of the second axis) and with it (index 1)."""

    activation: str
    initializers: tuple[str, ...]
    weight_scale: np.ndarray  # (6,) fan-in · Var(w); NaN if the mean of the weights is not 0
    activation_std: np.ndarray  # (6, 2, L) over units and samples
    gradient_std: np.ndarray  # (6, 2, L) of the gradient at the dense layer's output
    theory_activation_std: np.ndarray  # (6, L) without batch norm; NaN if the mean of the weights is not 0
    theory_gradient_std: np.ndarray  # (6, L)
    saturated: np.ndarray  # (6, 2, L) share of the activations
    dead: np.ndarray  # (6, 2, L) share of the units that are saturated for every sample


def run(
    activation: str = "relu",
    width: int = 784,
    samples: int = 100,
    mean: float = 0.0,
    std: float = 1.0,
    gain: float = 1.0,
    seed: int = 0,
) -> Layer:
    """Pass `samples` standard-normal vectors through SimpleMLP's dense layer, `width` → 256, with zero biases.

    Args:
        mean, std: for random_normal.
        gain: factor for Glorot and He weights.
    """
    _check(activation, width=(width, 1), samples=(samples, 1))
    layers = [_one_layer(name, activation, width, samples, *_relevant(name, mean, std, gain), seed) for name in NAMES]
    (input_std, *_), *rows = zip(*layers, strict=True)
    return Layer(activation, NAMES, input_std, *map(np.array, rows))


def stack(
    activation: str = "relu",
    depth: int = 30,
    width: int = 100,
    samples: int = 100,
    mean: float = 0.0,
    std: float = 1.0,
    gain: float = 1.0,
    seed: int = 0,
) -> Stack:
    """A stack of `depth` dense layers of `width` units, without and with batch norm before the activation.

    The input and the gradient at the output are standard normal. Computed in float64, since values may explode.
    """
    _check(activation, depth=(depth, 1), width=(width, 1), samples=(samples, 2))
    scales = [_scale(name, width, width, mean, std, gain) for name in NAMES]
    measured = np.array(
        [_one_stack(name, activation, depth, width, samples, *_relevant(name, mean, std, gain), seed) for name in NAMES]
    )  # (6, 2, 4, L)
    forward, back, saturated, dead = measured.transpose(2, 0, 1, 3)
    expected = np.array([theory(activation, scale, depth) for scale in scales])  # (6, 2, L)
    return Stack(activation, NAMES, np.array(scales), forward, back, expected[:, 0], expected[:, 1], saturated, dead)


@lru_cache(maxsize=64)
def _one_layer(
    name: str, activation: str, width: int, samples: int, mean: float, std: float, gain: float, seed: int
) -> tuple[Any, ...]:
    """The values of one initialiser for the fields of `Layer`, from `input_std` on."""
    x = torch.randn(samples, width, generator=_generator(seed + 1))
    hidden = x @ draw_weight(name, UNITS, width, _generator(seed), mean, std, gain).T  # (samples, UNITS)
    y = ACTIVATIONS[activation](hidden)
    values = torch.cat((x.flatten(), y.flatten()))
    edges = np.linspace(float(values.min()), float(values.max()), BINS + 1)
    return (
        float(x.std(correction=0)),
        float(y.double().std(correction=0)),
        theory(activation, _scale(name, width, UNITS, mean, std, gain), 1)[0, 0],
        float(is_saturated(activation, hidden).float().mean()),
        edges,
        _shares(x, edges),
        _shares(y, edges),
    )


@lru_cache(maxsize=64)
def _one_stack(
    name: str, activation: str, depth: int, width: int, samples: int, mean: float, std: float, gain: float, seed: int
) -> np.ndarray:
    """(2, 4, L): `measure` of one initialiser's stack, without and with batch norm."""
    generator, draw = _generator(seed + 1), _generator(seed)
    x, g = (torch.randn(samples, width, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = [draw_weight(name, width, width, draw, mean, std, gain).double() for _ in range(depth)]
    return np.array([measure(activation, *propagate(weights, x, g, activation, norm)) for norm in NORMS])


def _relevant(name: str, mean: float, std: float, gain: float) -> tuple[float, float, float]:
    """Mean, std and gain, with the values that `name` does not use reset, so that results can be cached."""
    if name == "random_normal":
        return mean, std, 1.0
    return 0.0, 1.0, 1.0 if name == "zeros" else gain


def draw_weight(
    name: str, fan_out: int, fan_in: int, generator: Generator, mean: float = 0.0, std: float = 1.0, gain: float = 1.0
) -> Tensor:
    """float32 (fan_out, fan_in); `mean` and `std` for random_normal, `gain` for Glorot and He."""
    weight = torch.empty(fan_out, fan_in)
    if name == "random_normal":
        return initialize(weight, name, generator, mean=mean, std=std)
    return gain * initialize(weight, name, generator)


def _scale(name: str, fan_in: int, fan_out: int, mean: float, std: float, gain: float) -> float:
    """fan-in · Var(w); NaN if the mean of the weights is not 0."""
    if name == "random_normal":
        return fan_in * std**2 if mean == 0 else math.nan
    share = {"zeros": 0.0, "glorot": 2 * fan_in / (fan_in + fan_out), "he": 2.0}[name.split("_")[0]]
    return gain**2 * share


def _shares(values: Tensor, edges: np.ndarray) -> np.ndarray:
    """Share of the values per bin, (BINS,)."""
    return np.histogram(values.double().numpy(), edges)[0] / values.numel()


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _check(activation: str, **sizes: tuple[int, int]) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, received {activation!r}")
    for name, (size, least) in sizes.items():
        if size < least:
            raise ValueError(f"{name}: expected at least {least}, received {size}")


@plotting.plot_style()
def figure(result: Layer) -> Figure:
    """Inputs and outputs of the layer for all six initialisers."""
    drawn, panels = plotting.new_figure(columns=3, rows=2, width=9.6, height=5)
    for axes, name, std, edges, inputs, outputs in zip(
        panels,
        result.initializers,
        result.output_std,
        result.edges,
        result.input_shares,
        result.output_shares,
        strict=True,
    ):
        plotting.stairs(axes, outputs, edges, fill=True, color=plotting.ROSE, alpha=0.5, linewidth=0, label="outputs")
        plotting.stairs(axes, inputs, edges, color=plotting.INK, linestyle="--", linewidth=1.4, label="inputs")
        axes.set(title=f"{title(name)}: std {std:.3g}", xlabel="value", yscale="log", ylim=(3e-6, 3))
        axes.set_ylabel("share of the values (log)")
        _decades(axes, (-5, -3, -1))
    plotting.legend(drawn, panels[0])
    return drawn


@plotting.plot_style()
def stack_figure(result: Stack) -> Figure:
    """Standard deviations of activations and gradients over the layers for all six initialisers, with the theory."""
    drawn, panels = plotting.new_figure(columns=3, rows=2, width=9.6, height=5.4)
    layers = np.arange(1, result.activation_std.shape[-1] + 1)
    for k, (axes, name) in enumerate(zip(panels, result.initializers, strict=True)):
        for values, theory_std, color, label in (
            (result.activation_std[k], result.theory_activation_std[k], plotting.ROSE, "activations"),
            (result.gradient_std[k], result.theory_gradient_std[k], plotting.OLIVE, "gradients"),
        ):
            plain, normed = _drawable(values)
            axes.plot(layers, plain, color=color, linewidth=2.4, label=label)
            axes.plot(layers, normed, "--", color=color, label=f"{label}, batch norm")
            axes.plot(layers, _drawable(theory_std), ":", color=plotting.INK, zorder=3, label=f"_{label}, theory")
        axes.set(title=f"{title(name)}{_var(result.weight_scale[k])}", yscale="log", ylim=LIMITS, xlabel="layer")
        axes.set_xlim(0, len(layers) + 1)  # also if every curve is zero
        axes.set_ylabel("standard deviation (log)")
        _decades(axes, (-6, -3, 0, 3, 6))
        if not result.activation_std[k].any():
            all_zero = not result.gradient_std[k].any()
            words = "0 in every layer" if all_zero else "activations: 0 in every layer\ngradients: 0 before the last"
            axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=plotting.INK)
    panels[0].plot([], [], ":", color=plotting.INK, label="theory")
    plotting.legend(drawn, panels[0])
    return drawn


def _decades(axes: Axes, powers: Sequence[int]) -> None:
    plotting.ticks(axes.yaxis, [10.0**power for power in powers], plotting.powers_of_ten(powers))
    axes.minorticks_off()


def _drawable(values: np.ndarray) -> np.ndarray:
    """Replace values that a log scale cannot show: zeros, and values far beyond the limits."""
    low, high = LIMITS
    return np.where((values > low / 1e3) & (values < high * 1e3), values, np.nan)


def title(name: str) -> str:
    """“he_normal” → “He normal”."""
    return name.replace("_", " ").replace("glorot", "Glorot").replace("he ", "He ")


def _var(scale: float) -> str:
    return "" if math.isnan(scale) else f": {scale:.3g} / fan-in" if scale else ": 0"
