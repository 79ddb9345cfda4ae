"""Find the batch norms of a network, and read their parameters and running statistics."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

Norm: TypeAlias = _BatchNorm
"""Base class of torch's BatchNorm1d, 2d, 3d and SyncBatchNorm, and of CustomBatchNorm."""


def named_batch_norms(model: nn.Module) -> dict[str, Norm]:
    """Qualified name → batch norm, in order of registration; a shared module appears once.

    Subclasses whose running statistics are not one mean and one variance per channel are left out.

    Raises:
        ValueError: a lazy module is not initialised, a parameter or buffer is on the meta device, or a batch norm is
            scripted.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name}: expected an initialised module, received a lazy one; run one forward pass first")
        if tensor.is_meta:
            raise ValueError(f"{name}: expected values, received a meta tensor; load the weights first")
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
    """Running mean and variance, (C,) each, or None if the layer keeps none."""
    mean, var = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    return None if mean is None or var is None else (mean, var)


def batches_tracked(norm: Norm) -> int | None:
    """Batches seen in training mode, or None if they are not counted."""
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


def amplification(norm: Norm) -> Tensor:
    """|γ| / √(σ² + ε) of each channel in eval mode, (C,), for a layer with running statistics."""
    running, scale = running_statistics(norm), scale_of(norm)
    assert running is not None
    inverse = torch.rsqrt(running[1].detach().float() + norm.eps)
    return inverse if scale is None else inverse * scale.detach().float().abs()
