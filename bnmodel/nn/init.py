"""Six weight initialisers.

Fan-in and fan-out are the numbers of connections into and out of a unit. Glorot & Bengio (2010) keep the variance of
both activations and gradients: Var(w) = 2 / (fan_in + fan_out). He et al. (2015, arXiv 1502.01852) compensate for ReLU,
which zeroes half of the activations: Var(w) = 2 / fan_in. A uniform distribution on [−a, a] has variance a² / 3.
"""

import math
from collections.abc import Callable

from torch import Generator, Tensor, nn


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a dense weight (out, in) or a convolution weight (out, in, *kernel).

    Raises:
        ValueError: the weight has fewer than two dimensions, or no elements.
    """
    if weight.dim() < 2 or weight.numel() == 0:
        raise ValueError(
            f"weight: expected (out, in) or (out, in, *kernel), not empty, received shape {list(weight.shape)}"
        )
    kernel = math.prod(weight.shape[2:])
    return weight.size(1) * kernel, weight.size(0) * kernel


def random_normal(weight: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """N(mean, std²), independent of the size of the layer."""
    return nn.init.normal_(weight, mean, std, generator)


def zeros(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Zeros: all units compute the same and get the same gradient."""
    return nn.init.zeros_(weight)


def glorot_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """N(0, 2 / (fan_in + fan_out))."""
    fan_in, fan_out = fans(weight)
    return nn.init.normal_(weight, 0.0, math.sqrt(2 / (fan_in + fan_out)), generator)


def glorot_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """U(−a, a) with a = √(6 / (fan_in + fan_out))."""
    fan_in, fan_out = fans(weight)
    bound = math.sqrt(6 / (fan_in + fan_out))
    return nn.init.uniform_(weight, -bound, bound, generator)


def he_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """N(0, 2 / fan_in)."""
    fan_in, _ = fans(weight)
    return nn.init.normal_(weight, 0.0, math.sqrt(2 / fan_in), generator)


def he_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """U(−a, a) with a = √(6 / fan_in)."""
    fan_in, _ = fans(weight)
    bound = math.sqrt(6 / fan_in)
    return nn.init.uniform_(weight, -bound, bound, generator)


INITIALIZERS: dict[str, Callable[..., Tensor]] = {
    "random_normal": random_normal,
    "zeros": zeros,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
}
"""The initialisers by name. Each fills `weight` in place, outside the autograd graph, and returns it."""


def initialize(weight: Tensor, name: str, generator: Generator | None = None, **options: float) -> Tensor:
    """Fill `weight` in place with the initialiser called `name`.

    Raises:
        ValueError: there is no such initialiser.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"initializer: expected one of {', '.join(INITIALIZERS)}, received {name!r}")
    return INITIALIZERS[name](weight, generator=generator, **options)
