"""Faster max-pooling with identical values.

On one thread, torch's max_pool2d takes a third of a small network's time. Without gradients, the maximum of four slices
avoids storing the positions; with gradients, torch is faster with channels last.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class QuickPooling(TorchFunctionMode):
    """A context manager in which every 2×2 max-pool of this thread uses the faster form."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") != "max_pool2d":
            return function(*args, **kwargs)
        if torch.is_grad_enabled():
            x, *others = args
            return function(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, *others, **kwargs)
        return _max_pool2d(function, *args, **kwargs)


def _max_pool2d(function: Any, x: Tensor, kernel_size: Any, stride: Any = None, *others: Any, **named: Any) -> Any:
    """(…, H, W) → (…, H / 2, W / 2) for plain 2×2 pooling; otherwise the result of `function`."""
    twos = (2, (2, 2), [2, 2])
    plain = {"padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
    if kernel_size in twos and (not stride or stride in twos) and not others and named.items() <= plain.items():
        height, width = (side // 2 * 2 for side in x.shape[-2:])
        rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])
    return function(x, kernel_size, stride, *others, **named)
