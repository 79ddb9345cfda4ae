"""Six weight initialisers.

Fan-in and fan-out are the numbers of connections into and out of a unit. Glorot & Bengio (2010) keep the variance of
both activations and gradients: Var(w) = 2 / (fan_in + fan_out). He et al. (2015, arXiv 1502.01852) compensate for ReLU,
which zeroes half of the activations: Var(w) = 2 / fan_in. A uniform distribution on [−a, a] has variance a² / 3.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a dense weight (out, in) or a convolution weight (out, in, *kernel).

    Raises:
        ValueError: the weight has fewer than two dimensions.
    """
    if weight.dim() < 2:
        raise ValueError(f"weight: expected (out, in) or (out, in, *kernel), received shape {list(weight.shape)}")
    kernel = math.prod(weight.shape[2:])
    return weight.size(1) * kernel, weight.size(0) * kernel


def random_normal(weight: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """N(mean, std²), independent of the size of the layer."""
    return _normal(weight, mean, std, generator)


def zeros(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Zeros: all units compute and learn the same."""
    with torch.no_grad():
        return weight.zero_()


def glorot_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """N(0, 2 / (fan_in + fan_out))."""
    fan_in, fan_out = fans(weight)
    return _normal(weight, 0.0, math.sqrt(2 / (fan_in + fan_out)), generator)


def glorot_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """U(−a, a) with a = √(6 / (fan_in + fan_out))."""
    fan_in, fan_out = fans(weight)
    return _uniform(weight, math.sqrt(6 / (fan_in + fan_out)), generator)


def he_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """N(0, 2 / fan_in)."""
    fan_in, _ = fans(weight)
    return _normal(weight, 0.0, math.sqrt(2 / fan_in), generator)


def he_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """U(−a, a) with a = √(6 / fan_in)."""
    fan_in, _ = fans(weight)
    return _uniform(weight, math.sqrt(6 / fan_in), generator)


INITIALIZERS: dict[str, Callable[..., Tensor]] = {
    "random_normal": random_normal,
    "zeros": zeros,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
}
"""The initialisers by name. Each fills `weight` in place, outside the graph, from `generator`, and returns it."""


def initialize(weight: Tensor, name: str, generator: Generator | None = None, **options: float) -> Tensor:
    """Fill `weight` in place with the initialiser called `name`.

    Raises:
        ValueError: there is no such initialiser.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"initializer: expected one of {', '.join(INITIALIZERS)}, received {name!r}")
    return INITIALIZERS[name](weight, generator=generator, **options)


def _normal(weight: Tensor, mean: float, std: float, generator: Generator | None) -> Tensor:
    with torch.no_grad():
        return weight.normal_(mean, std, generator=generator)


def _uniform(weight: Tensor, bound: float, generator: Generator | None) -> Tensor:
    with torch.no_grad():
        return weight.uniform_(-bound, bound, generator=generator)
