"""A network's batch norms and what they hold."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

Norm: TypeAlias = _BatchNorm
"""What torch's BatchNorm1d, 2d, 3d and SyncBatchNorm, CustomBatchNorm, and subclasses of them have in common."""


def named_batch_norms(model: nn.Module) -> dict[str, Norm]:
    """Qualified name → batch norm, in order of registration; a shared module appears once.

    A subclass that keeps other running statistics than one mean and variance per channel is left out.

    Raises:
        ValueError: a lazy module has not been initialised, or batch norms are scripted: they cannot be looked into.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name}: expected an initialised module, received a lazy one; run one forward pass first")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and "BatchNorm" in module.original_name:
            raise ValueError(f"{name}: expected a Python module, received a scripted one; check it before scripting")
    return {
        name: module for name, module in model.named_modules() if isinstance(module, Norm) and _is_per_channel(module)
    }


def _is_per_channel(norm: Norm) -> bool:
    return all(each.shape == (norm.num_features,) for each in running_statistics(norm) or ())


def takes(norm: nn.Module, x: Tensor) -> bool:
    """Whether `x` has the layer's channels on axis 1; a subclass may rearrange its input itself."""
    return x.dim() > 1 and x.size(1) == norm.num_features


def running_statistics(norm: Norm) -> tuple[Tensor, Tensor] | None:
    """Running mean and variance, (C,) each, or None where the layer keeps none."""
    mean, var = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    return None if mean is None or var is None else (mean, var)


def batches_tracked(norm: Norm) -> int | None:
    """Batches seen in training mode, or None where they are not counted."""
    count = getattr(norm, "num_batches_tracked", None)
    return None if count is None else int(count)


def scale_of(norm: Norm) -> Tensor | None:
    """γ (C,), or None for 1."""
    scale: Tensor | None = norm.weight
    return scale


def initial_weight(norm: Norm) -> float:
    """Weight in [0, 1] that the initial values still have in the running averages: (1 − momentum)^batches."""
    count, momentum = batches_tracked(norm), norm.momentum
    if count is None:
        return 0.0
    if momentum is None:
        return 0.0 if count else 1.0
    return float((1 - momentum) ** count)
