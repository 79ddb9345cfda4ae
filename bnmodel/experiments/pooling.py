"""Max-pooling as the largest of four slices: the very same values, several times sooner.

torch's own also notes where each maximum was, for the gradient; with one thread and small pictures that takes a third
of a network's time. For experiments that evaluate thousands of digits while somebody waits.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class QuickPooling(TorchFunctionMode):
    """Within `with QuickPooling():` every max-pool 2×2 of this thread is quick, as long as gradients are off."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") == "max_pool2d" and not torch.is_grad_enabled():
            return _max_pool2d(function, *args, **kwargs)
        return function(*args, **kwargs)


def _max_pool2d(function: Any, x: Tensor, kernel_size: Any, stride: Any = None, *others: Any, **named: Any) -> Any:
    """(…, H, W) → (…, H / 2, W / 2) where that is what is asked for; else what `function` makes of it."""
    twos = (2, (2, 2), [2, 2])
    plain = {"padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
    if kernel_size in twos and (not stride or stride in twos) and not others and named.items() <= plain.items():
        height, width = (side // 2 * 2 for side in x.shape[-2:])
        rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])
    return function(x, kernel_size, stride, *others, **named)
