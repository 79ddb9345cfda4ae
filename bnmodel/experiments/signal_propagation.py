"""Activations and gradients in a stack of dense layers: propagated through drawn weights, and in theory.

Theory: for n inputs with mean square s and weights of mean 0, pre-activations are normal with variance
q = n · Var(w) · s (exact as n grows). After the activation f the mean square is E[f(√q z)²], with z standard normal;
backwards, the variance of the gradient is multiplied by n · Var(w) · E[f′(√q z)²]. The identity preserves both if
Var(w) = 1/n (Glorot & Bengio 2010), and ReLU, which halves them, if Var(w) = 2/n (He et al. 2015, arXiv 1502.01852).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bnmodel.nn import models
from bnmodel.nn.batchnorm import batch_norm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {**models.ACTIVATIONS, "identity": lambda h: h}
# f′ relative to its maximum
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: (h > 0).to(h),
    "sigmoid": lambda h: 4 * torch.sigmoid(h) * torch.sigmoid(-h),
    "tanh": lambda h: 1 - torch.tanh(h) ** 2,
    "identity": torch.ones_like,
}
STEEPEST = {"sigmoid": 0.25}  # maximum of f′; 1 for the others
SATURATED = 0.01  # an activation is saturated if f′ is below this share of its maximum


def is_saturated(activation: str, pre_activations: Tensor) -> Tensor:
    """Whether f′ is below SATURATED of its maximum: ReLU's left side, the tails of sigmoid and tanh."""
    return SLOPES[activation](pre_activations) < SATURATED


def propagate(
    weights: list[Tensor], x: Tensor, g: Tensor, activation: str, norm: bool
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Forward and backward pass through dense → (batch norm) → activation, repeated; x and g are (N, units).

    Returns:
        Per layer, (N, units) each: input and output of the activation, and the gradient at the dense layer's output for
        the gradient `g` at the top.
    """
    dense, pre_activations, activations = [], [], []
    y = x.detach().requires_grad_()  # so that the first layer is in the graph
    for weight in weights:
        dense.append(y @ weight.T)
        pre_activations.append(batch_norm(dense[-1])[0] if norm else dense[-1])
        y = ACTIVATIONS[activation](pre_activations[-1])
        activations.append(y)
    return pre_activations, activations, list(torch.autograd.grad(y, dense, g))


@lru_cache(maxsize=256)
def theory(activation: str, scale: float, depth: int) -> np.ndarray:
    """Standard deviations of activations and gradients in wide layers with fan-in · Var(w) = `scale`, (2, depth).

    The inputs have mean square 1, and the gradient at the top has variance 1.
    """
    z = torch.linspace(-8, 8, 4000, dtype=torch.float64)  # small steps, since f may be steep or have a kink at 0
    density = torch.exp(-(z**2) / 2)
    density /= density.sum()
    square, deviations, factors = 1.0, [], []
    for _ in range(depth):
        h = math.sqrt(scale * square) * z
        f = ACTIVATIONS[activation](h)
        square = float(density @ f**2)
        deviations.append(math.sqrt(max(square - float(density @ f) ** 2, 0)))
        factors.append(STEEPEST.get(activation, 1) ** 2 * float(density @ SLOPES[activation](h) ** 2))
    # from the top: through the activations from this layer on, and the weights between them
    back = np.cumprod(factors[::-1])[::-1] * float(scale) ** np.arange(depth - 1, -1, -1)  # an int would overflow
    return np.array([deviations, np.sqrt(back)])


def measure(
    activation: str, pre_activations: list[Tensor], activations: list[Tensor], gradients: list[Tensor]
) -> list[list[float]]:
    """Standard deviations of activations and gradients, and shares of saturated and dead units, per layer: (4, L).

    The arguments are the results of `propagate`.
    """
    flat = is_saturated(activation, torch.stack(pre_activations).detach())  # (L, N, units)
    _, samples, units = flat.shape
    return [
        _spread(torch.stack(activations).detach()),
        _spread(torch.stack(gradients)),
        (flat.sum(dim=(1, 2)) / (samples * units)).tolist(),
        ((flat.sum(dim=1) == samples).sum(dim=1) / units).tolist(),
    ]


def _spread(values: Tensor) -> list[float]:
    """Standard deviations over (N, units) of (L, N, units); ten times faster than torch.std."""
    centred = values - values.mean(dim=(1, 2), keepdim=True)
    deviations: list[float] = (torch.linalg.vector_norm(centred, dim=(1, 2)) / math.sqrt(values[0].numel())).tolist()
    return deviations
