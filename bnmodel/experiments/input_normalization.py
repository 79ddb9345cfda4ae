"""Gradient descent on the loss of a linear neuron with two weights, on raw and on normalised inputs.

The loss of ŷ = w · x over N samples, L(w) = Σ (w · x − y)² / N, is quadratic with the Hessian H = 2 XᵀX / N.
Gradient descent with learning rate η is stable below 2 / λmax and fastest at 2 / (λmin + λmax); its number of steps
grows with the condition number λmax / λmin (Polyak 1964). Inputs of mean 0 and variance 1 reduce the condition number,
to 1 if they are uncorrelated (LeCun et al. 1998, “Efficient BackProp”, §4.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnmodel import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WEIGHTS = (1.0, -0.5)  # true weights
NOISE = 0.1  # standard deviation of the noise of the targets
CONVERGED = 1e-3  # excess loss, relative to that at the start
MOST_STEPS = 2000
SIGNS = ("+ +", "− −", "+ −", "− +")
GRID = 60  # points of a contour plot per axis


@dataclass(frozen=True)
class Descent:
    """One loss surface, and the path of SGD on it from w = 0."""

    minimum: np.ndarray  # (2,) the least-squares solution
    hessian: np.ndarray  # (2, 2)
    condition_number: float
    largest_rate: float  # the largest stable learning rate, 2 / λmax (without momentum)
    best_rate: float  # the fastest one, 2 / (λmin + λmax) (without momentum)
    rate: float  # the learning rate used
    path: np.ndarray  # (steps + 1, 2)
    excess: np.ndarray  # (steps + 1,) loss minus its minimum, relative to the start
    converged_after: int | None  # steps until `excess` stays ≤ 0.001; None: not within 2000
    signs: np.ndarray  # (4,) share of the samples' gradients along the path by the signs of their components
    grid: np.ndarray  # (2, G) values of the two weights
    surface: np.ndarray  # (G, G) excess on the grid; rows are the second weight


@dataclass(frozen=True)
class InputNormalization:
    """The same data, raw and normalised: inputs to mean 0 and variance 1, targets to mean 0."""

    share: float  # learning rate, relative to the best rate of each surface
    momentum: float
    raw_inputs: np.ndarray  # (N, 2)
    raw: Descent
    normalized: Descent


def run(
    scale: float = 3.0,
    offset: float = 1.0,
    correlation: float = 0.0,
    share: float = 0.9,
    momentum: float = 0.0,
    steps: int = 40,
    batch_size: int = 200,
    samples: int = 200,
    seed: int = 0,
) -> InputNormalization:
    """Run SGD on `samples` points, raw and normalised, with the same seed.

    Args:
        scale: standard deviation of the second input; the first has 1.
        offset: mean of both inputs, in standard deviations.
        correlation: correlation of the inputs, in (−1, 1).
        share: learning rate, relative to the best rate of each surface; it diverges from 1 + λmin / λmax on.
        momentum: SGD momentum, in [0, 1).
        batch_size: samples per step; `samples` gives plain gradient descent.

    Raises:
        ValueError: a value outside these bounds.
    """
    _check(scale, correlation, share, momentum, steps, batch_size, samples)
    inputs, targets = draw_data(scale, offset, correlation, samples, seed)
    centred = (inputs - inputs.mean(0)) / inputs.std(0)
    options = (share, momentum, steps, batch_size, seed)
    return InputNormalization(
        share,
        momentum,
        inputs,
        descend(inputs, targets, *options),
        descend(centred, targets - targets.mean(), *options),  # what a bias would do
    )


def draw_data(
    scale: float, offset: float, correlation: float, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, 2) and targets (N,) with exactly the given means, deviations and correlation."""
    generator = np.random.default_rng(seed)
    white = generator.standard_normal((samples, 2))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(white.T @ white / samples)).T  # covariance 1
    mixed = white @ np.array([[1, correlation], [0, np.sqrt(1 - correlation**2)]])
    inputs = (mixed + offset) * np.array([1, scale])
    return inputs, inputs @ np.array(WEIGHTS) + NOISE * generator.standard_normal(samples)


def descend(
    inputs: np.ndarray, targets: np.ndarray, share: float, momentum: float, steps: int, batch_size: int, seed: int
) -> Descent:
    """Run SGD from w = 0 on the mean squared error between `inputs` (N, 2) · w and `targets` (N,)."""
    hessian = 2 * inputs.T @ inputs / len(inputs)
    minimum = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    smallest, largest = np.linalg.eigvalsh(hessian)
    best = 2 / (smallest + largest)
    rate = share * best
    path = sgd(inputs, targets, rate, momentum, MOST_STEPS, batch_size, seed)
    excess = excess_loss(path - minimum, hessian)
    shown = path[: steps + 1]
    reach = 1.25 * np.abs(minimum).max()
    grid = minimum[:, None] + np.linspace(-reach, reach, GRID)  # (2, G), square
    first, second = np.meshgrid(*(grid - minimum[:, None]))
    start = excess_loss(-minimum, hessian)
    return Descent(
        minimum,
        hessian,
        float(largest / smallest),
        float(2 / largest),
        float(best),
        float(rate),
        shown,
        excess[: steps + 1] / start,
        _converged_after(excess / start),
        _sign_shares(inputs, targets, shown),
        grid,
        excess_loss(np.stack((first, second), axis=-1), hessian) / start,
    )


def sgd(
    inputs: np.ndarray, targets: np.ndarray, rate: float, momentum: float, steps: int, batch_size: int, seed: int
) -> np.ndarray:
    """The weights (≤ steps + 1, 2) of SGD from 0, with the momentum rule of torch.optim.SGD.

    Stops early if the weights become very large.
    """
    generator = np.random.default_rng(seed)
    weights, velocity = np.zeros(2), np.zeros(2)
    path = [weights]
    batches: list[np.ndarray] = []  # indices
    for _ in range(steps):
        if not batches:
            order = generator.permutation(len(inputs))
            batches = np.array_split(order, range(batch_size, len(inputs), batch_size))
        chosen = batches.pop()
        x = inputs[chosen]
        gradient = 2 * x.T @ (x @ weights - targets[chosen]) / len(chosen)
        velocity = momentum * velocity + gradient
        weights = weights - rate * velocity
        path.append(weights)
        if np.abs(weights).max() > 1e6:
            break
    return np.array(path)


def excess_loss(deviation: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Loss above the minimum at a `deviation` δ (…, 2) from it: ½ δᵀHδ."""
    loss: np.ndarray = np.einsum("...i,ij,...j->...", deviation, hessian, deviation) / 2
    return loss


def _converged_after(excess: np.ndarray) -> int | None:
    """The first step from which on `excess` (steps + 1,) stays at or below CONVERGED."""
    large = np.flatnonzero(~(excess <= CONVERGED))
    after = int(large[-1]) + 1 if len(large) else 0
    return after if after < len(excess) else None


def _sign_shares(inputs: np.ndarray, targets: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Shares (4,) in the order of SIGNS, over all samples and all points of the path."""
    errors = path @ inputs.T - targets  # (steps + 1, N)
    first, second = (errors * column for column in inputs.T)  # ∂/∂w of each sample's loss, without the factor 2
    patterns = ((first > 0) & (second > 0), (first < 0) & (second < 0), (first > 0) & (second < 0))
    shares = [float(pattern.mean()) for pattern in patterns]
    return np.array([*shares, float(((first < 0) & (second > 0)).mean())])


def _check(
    scale: float, correlation: float, share: float, momentum: float, steps: int, batch_size: int, samples: int
) -> None:
    for name, good, expected, value in (
        ("scale", scale > 0, "a number > 0", scale),
        ("correlation", -1 < correlation < 1, "a number in (−1, 1)", correlation),
        ("share", share > 0, "a number > 0", share),
        ("momentum", 0 <= momentum < 1, "a number in [0, 1)", momentum),
        ("steps", 1 <= steps <= MOST_STEPS, f"1 … {MOST_STEPS}", steps),
        ("batch_size", 1 <= batch_size <= samples, f"1 … {samples}, the number of samples", batch_size),
        ("samples", samples >= 3, "at least 3", samples),
    ):
        if not good:
            raise ValueError(f"{name}: expected {expected}, received {value}")


@plotting.plot_style()
def figure(result: InputNormalization) -> Figure:
    """Both loss surfaces with their paths, the losses per step, and the signs of the gradients."""
    drawn, (raw, normalized, losses, signs) = plotting.new_figure(columns=2, rows=2, width=7.6, height=7.0)
    both = (
        (raw, result.raw, plotting.OLIVE, "raw inputs", "s--", -0.2),
        (normalized, result.normalized, plotting.ROSE, "normalised inputs", "o-", 0.2),
    )
    for axes, descent, color, name, marker, side in both:
        _bowl(axes, descent, color, marker)
        axes.set_title(f"{name.split()[0]}: condition number {descent.condition_number:.3g}")
        losses.plot(np.maximum(descent.excess, 1e-12), marker, color=color, markersize=4, label=name)
        signs.bar(np.arange(len(SIGNS)) + side, descent.signs, 0.38, color=color, label=name)
    losses.axhline(CONVERGED, color=plotting.INK, linestyle=":")
    powers = range(-6, 3, 2)
    losses.set(title="loss above the minimum", xlabel="step", ylabel="share of the start (log)", yscale="log")
    losses.set_ylim(1e-6, 1e2)
    plotting.ticks(losses.yaxis, [10.0**power for power in powers], plotting.powers_of_ten(powers))
    losses.minorticks_off()
    signs.set(title="signs of the two weights' gradients", xlabel="first and second weight", ylim=(0, 1))
    signs.set_ylabel("share of samples and steps")
    plotting.percent_axis(signs.yaxis)
    plotting.ticks(signs.xaxis, range(len(SIGNS)), SIGNS)
    signs.set_axisbelow(True)
    plotting.legend(drawn, losses)
    return drawn


def _bowl(axes: Axes, descent: Descent, color: str, marker: str) -> None:
    levels = [float(level) for level in np.geomspace(1e-3, max(2, descent.surface.max()), 14)]
    axes.contour(*descent.grid, descent.surface, levels, colors=plotting.INK, linewidths=0.8, alpha=0.45)
    axes.plot(*descent.path.T, marker, color=color, markersize=4, linewidth=1.4, clip_on=True)
    axes.plot(*descent.minimum, "+", color=plotting.INK, markersize=12, markeredgewidth=2)
    axes.set(
        xlabel="first weight",
        ylabel="second weight",
        aspect="equal",
        xlim=descent.grid[0, [0, -1]],
        ylim=descent.grid[1, [0, -1]],
    )
