"""What an initialiser does to one dense layer, and to a stack of thirty, without and with batch norm.

Theory: of n inputs with mean square s, a unit with weights of mean 0 makes a value that is normal, with variance
q = n · Var(w) · s (exact as n grows). Through the activation f, the next mean square is E[f(√q z)²], z standard
normal; back through the layer a gradient's variance grows by n · Var(w) · E[f′(√q z)²]. An identity keeps both where
Var(w) = 1/n (Glorot & Bengio 2010), ReLU, which halves them, where Var(w) = 2/n (He et al. 2015, arXiv 1502.01852).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from bnmodel import plotting
from bnmodel.nn import models
from bnmodel.nn.batchnorm import batch_norm
from bnmodel.nn.init import INITIALIZERS, initialize

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {**models.ACTIVATIONS, "identity": lambda h: h}
# f′ in shares of its steepest
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: (h > 0).to(h),
    "sigmoid": lambda h: 4 * torch.sigmoid(h) * torch.sigmoid(-h),
    "tanh": lambda h: 1 - torch.tanh(h) ** 2,
    "identity": torch.ones_like,
}
STEEPEST = {"sigmoid": 0.25}  # of the others it is 1
SATURATED = 0.01  # a slope below this share of the steepest hardly lets a gradient through
NAMES = tuple(INITIALIZERS)
UNITS = 256  # outputs of the one layer
BINS = 48
NORMS = (False, True)
LIMITS = (1e-6, 1e6)  # of the stack's picture; what leaves them has exploded or vanished


@dataclass(frozen=True)
class Layer:
    """Histograms of a layer's inputs and outputs under each of the six initialisers, in the order of `initializers`."""

    activation: str
    initializers: tuple[str, ...]
    input_std: float
    output_std: np.ndarray  # (6,)
    theory_std: np.ndarray  # (6,), NaN where there is no theory (a mean other than 0)
    saturated: np.ndarray  # (6,) share of the outputs
    edges: np.ndarray  # (6, B + 1) of the bins, each row as wide as its values
    input_shares: np.ndarray  # (6, B) of the inputs in each bin
    output_shares: np.ndarray  # (6, B)


@dataclass(frozen=True)
class Stack:
    """Layer by layer, without batch norm (index 0 of the second axis) and with it (index 1)."""

    activation: str
    initializers: tuple[str, ...]
    weight_scale: np.ndarray  # (6,) fan-in · Var(w); NaN where the weights have a mean other than 0
    activation_std: np.ndarray  # (6, 2, L) over units and samples
    gradient_std: np.ndarray  # (6, 2, L) of the gradient at the dense layer's output
    theory_activation_std: np.ndarray  # (6, L) without batch norm; NaN where there is no theory
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
    """`samples` standard-normal vectors through SimpleMLP's dense layer, `width` → 256, its biases 0.

    `mean` and `std` are random normal's; `gain` multiplies Glorot's and He's weights.
    """
    _check(activation, width=(width, 1), samples=(samples, 1))
    layers = [_one_layer(name, activation, width, samples, *_own(name, mean, std, gain), seed) for name in NAMES]
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
    """`depth` dense layers of `width` units, without and with batch norm in front of the activation.

    Standard-normal vectors go in at the bottom, a standard-normal gradient at the top. In float64: what explodes
    leaves float32.
    """
    _check(activation, depth=(depth, 1), width=(width, 1), samples=(samples, 2))
    scales = [_scale(name, width, width, mean, std, gain) for name in NAMES]
    measured = np.array(
        [_one_stack(name, activation, depth, width, samples, *_own(name, mean, std, gain), seed) for name in NAMES]
    )  # (6, 2, 4, L)
    forward, back, saturated, dead = measured.transpose(2, 0, 1, 3)
    expected = np.array([theory(activation, scale, depth) for scale in scales])  # (6, 2, L)
    return Stack(activation, NAMES, np.array(scales), forward, back, expected[:, 0], expected[:, 1], saturated, dead)


@lru_cache(maxsize=64)
def _one_layer(
    name: str, activation: str, width: int, samples: int, mean: float, std: float, gain: float, seed: int
) -> tuple[Any, ...]:
    """One initialiser's part of each field of `Layer`, from `input_std` on."""
    x = torch.randn(samples, width, generator=_generator(seed + 1))
    hidden = x @ draw_weight(name, UNITS, width, _generator(seed), mean, std, gain).T  # (samples, UNITS)
    y = ACTIVATIONS[activation](hidden)
    edges = _edges(x, y)
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
    """(2, 4, L): `_measure` of one initialiser's stack, without and with batch norm."""
    generator, draw = _generator(seed + 1), _generator(seed)
    x, g = (torch.randn(samples, width, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = [draw_weight(name, width, width, draw, mean, std, gain).double() for _ in range(depth)]
    return np.array([_measure(activation, *propagate(weights, x, g, activation, norm)) for norm in NORMS])


def _own(name: str, mean: float, std: float, gain: float) -> tuple[float, float, float]:
    """Mean, std and gain as far as initialiser `name` knows them: what else changes need not be computed again."""
    if name == "random_normal":
        return mean, std, 1.0
    return 0.0, 1.0, 1.0 if name == "zeros" else gain


def draw_weight(
    name: str, fan_out: int, fan_in: int, generator: Generator, mean: float = 0.0, std: float = 1.0, gain: float = 1.0
) -> Tensor:
    """float32 (fan_out, fan_in). `mean` and `std` are random normal's, `gain` multiplies Glorot's and He's weights."""
    weight = torch.empty(fan_out, fan_in)
    if name == "random_normal":
        return initialize(weight, name, generator, mean=mean, std=std)
    return gain * initialize(weight, name, generator)


def propagate(
    weights: list[Tensor], x: Tensor, g: Tensor, activation: str, norm: bool
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Forward and back: dense → (batch norm) → activation, layer after layer; x and g are (N, units).

    Returns, a tensor (N, units) a layer: what the activation receives, what it answers, and the gradient at the dense
    layer's output when that at the top is `g`.
    """
    dense, received, answered = [], [], []
    y = x.detach().requires_grad_()  # else the first layer would have no graph
    for weight in weights:
        dense.append(y @ weight.T)
        received.append(batch_norm(dense[-1])[0] if norm else dense[-1])
        y = ACTIVATIONS[activation](received[-1])
        answered.append(y)
    return received, answered, list(torch.autograd.grad(y, dense, g))


def is_saturated(activation: str, received: Tensor) -> Tensor:
    """Where the activation is (nearly) flat: ReLU's left side, the tails of sigmoid and tanh."""
    return SLOPES[activation](received) < SATURATED


@lru_cache(maxsize=256)
def theory(activation: str, scale: float, depth: int) -> np.ndarray:
    """(2, depth): the standard deviations of activations and gradients in wide layers with fan-in · Var(w) = `scale`.

    The inputs have mean square 1, the gradient at the top has variance 1.
    """
    z = torch.linspace(-8, 8, 4000, dtype=torch.float64)  # in small steps: f may be steep, or have a kink at 0
    density = torch.exp(-(z**2) / 2)
    density /= density.sum()
    square, deviations, factors = 1.0, [], []
    for _ in range(depth):
        h = math.sqrt(scale * square) * z
        f = ACTIVATIONS[activation](h)
        square = float(density @ f**2)
        deviations.append(math.sqrt(max(square - float(density @ f) ** 2, 0)))
        factors.append(STEEPEST.get(activation, 1) ** 2 * float(density @ SLOPES[activation](h) ** 2))
    # from the top down: through the activation of every layer from this one on, and the weights between them
    back = np.cumprod(factors[::-1])[::-1] * float(scale) ** np.arange(depth - 1, -1, -1)  # an int would overflow
    return np.array([deviations, np.sqrt(back)])


def _scale(name: str, fan_in: int, fan_out: int, mean: float, std: float, gain: float) -> float:
    """fan-in · Var(w), NaN where the weights have a mean."""
    if name == "random_normal":
        return fan_in * std**2 if mean == 0 else math.nan
    share = {"zeros": 0.0, "glorot": 2 * fan_in / (fan_in + fan_out), "he": 2.0}[name.split("_")[0]]
    return gain**2 * share


def _measure(
    activation: str, received: list[Tensor], answered: list[Tensor], gradients: list[Tensor]
) -> list[list[float]]:
    """(4, L): the standard deviations of activations and gradients, the saturated and the dead share."""
    flat = is_saturated(activation, torch.stack(received).detach())  # (L, N, units)
    _, samples, units = flat.shape
    return [
        _spread(torch.stack(answered).detach()),
        _spread(torch.stack(gradients)),
        (flat.sum(dim=(1, 2)) / (samples * units)).tolist(),
        ((flat.sum(dim=1) == samples).sum(dim=1) / units).tolist(),
    ]


def _spread(values: Tensor) -> list[float]:
    """The standard deviation of each (N, units) in (L, N, units); torch's own takes ten times as long."""
    centred = values - values.mean(dim=(1, 2), keepdim=True)
    return (torch.linalg.vector_norm(centred, dim=(1, 2)) / math.sqrt(values[0].numel())).tolist()


def _edges(inputs: Tensor, outputs: Tensor) -> np.ndarray:
    """(BINS + 1,) from the smallest to the largest of all."""
    values = torch.cat((inputs.flatten(), outputs.flatten()))
    return np.linspace(float(values.min()), float(values.max()), BINS + 1)


def _shares(values: Tensor, edges: np.ndarray) -> np.ndarray:
    """(BINS,)"""
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
    """All six side by side: the same inputs, and what the layer makes of them."""
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
        _decades(axes, (-5, -3, -1))
    panels[0].set_ylabel("share of the values (log)")
    panels[0].legend(loc="upper right")
    return drawn


@plotting.plot_style()
def stack_figure(result: Stack) -> Figure:
    """All six side by side: standard deviation of activations and gradients, layer by layer, and the theory."""
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
        axes.set_xlim(0, len(layers) + 1)  # also where every curve is zero
        _decades(axes, (-6, -3, 0, 3, 6))
    panels[0].plot([], [], ":", color=plotting.INK, label="theory")
    panels[0].set_ylabel("standard deviation (log)")
    panels[0].legend(loc="upper left")
    return drawn


def _decades(axes: Axes, powers: Sequence[int]) -> None:
    plotting.ticks(axes.yaxis, [10.0**power for power in powers], plotting.powers_of_ten(powers))
    axes.minorticks_off()


def _drawable(values: np.ndarray) -> np.ndarray:
    """Neither zeros, which have no place on a log scale, nor what is so far out that clipping it leaves traces."""
    low, high = LIMITS
    return np.where((values > low / 1e3) & (values < high * 1e3), values, np.nan)


def title(name: str) -> str:
    """“he_normal” → “He normal”."""
    return name.replace("_", " ").replace("glorot", "Glorot").replace("he ", "He ")


def _var(scale: float) -> str:
    return "" if math.isnan(scale) else f": {scale:.3g} / fan-in" if scale else ": 0"
