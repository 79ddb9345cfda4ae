"""Sums in another order: a runtime may add one element after the other, with larger rounding errors than torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
SUMS = (aten.sum.default, aten.sum.dim_IntList)
MEANS = (aten.mean.default, aten.mean.dim)


class InSequence(TorchDispatchMode):
    """While active, sums, means and cumulative sums of float32 tensors are added up one element after the other."""

    supports_higher_order_operators = True  # the operators of a branch of torch.cond come here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = func in (*SUMS, *MEANS, aten.cumsum.default)
        if not known or kwargs.get("dtype") is not None or args[0].dtype != torch.float32 or args[0].numel() < 2:
            return func(*args, **kwargs)
        x = args[0].detach()
        if func is aten.cumsum.default:
            return torch.from_numpy(np.add.accumulate(x.numpy(), args[1]))
        total = _sum(x, *args[1:3])
        return total / (x.numel() / total.numel()) if func in MEANS else total


def _sum(x: Tensor, axes: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    reduced = sorted(axis % x.dim() for axis in axes) if axes else list(range(x.dim()))
    kept = [axis for axis in range(x.dim()) if axis not in reduced]
    rows = x.permute(*reduced, *kept).reshape(-1, *(x.shape[axis] for axis in kept))
    total = torch.from_numpy(np.add.accumulate(rows.numpy(), 0)[-1:])  # not reduce, which adds in pairs
    if keepdim:
        return total.reshape([1 if axis in reduced else size for axis, size in enumerate(x.shape)])
    return total[0]
