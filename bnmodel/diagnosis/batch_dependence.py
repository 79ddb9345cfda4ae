"""Batch statistics in eval mode: of subclasses of batch norm with their own forward, and outside of batch norms."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

SIGNATURE = inspect.signature(F.batch_norm)
OPERATOR = ("input", "weight", "bias", "running_mean", "running_var", "training")  # first arguments of torch.batch_norm


class FunctionalNorms(TorchFunctionMode):
    """While active, find modules other than batch norms that call F.batch_norm or torch's operator in training mode.

    A batch of one, as in weight standardisation and adaptive instance norm, has no other samples.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: dict[str, None] = {}
        self._names = {module: name for name, module in model.named_modules()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.batch_norm, torch.batch_norm):
            names = SIGNATURE.parameters if func is F.batch_norm else OPERATOR
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            module = _calling_module()
            if given.get("training") and len(given["input"]) > 1 and not isinstance(module, _BatchNorm):
                self.found[self._names.get(module, "")] = None
        return func(*args, **kwargs)


def _calling_module() -> nn.Module | None:
    """The module whose method runs, for a caller that may be a function."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return owner
        frame = frame.f_back
    return None


def depends_on_batch(norm: nn.Module, x: Tensor) -> bool:
    """Whether a subclass with a forward of its own normalises with its batch in eval mode, too."""
    forward = type(norm).forward
    if forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward) or len(x) < 2:
        return False
    steps = [max(len(x) // 4, 1), 1, *(max(size // 8, 1) for size in x.shape[2:])]
    few = x[tuple(slice(None, None, step) for step in steps)][:4]

    def normalised(rows: Tensor) -> Tensor:
        outputs: Tensor = forward(norm, rows.clone())  # it may change its input in place
        return outputs

    for some in (few, x):  # four samples and few positions are enough, unless the forward needs all
        count = len(some) // 2
        try:
            first, alone = normalised(some)[:count], normalised(some[:count])
            if torch.equal(first, alone) or torch.allclose(first, alone, 1e-2, 1e-2, equal_nan=True):
                return False
            again = normalised(some)[:count]
            return torch.allclose(first, again, 1e-2, 1e-2, equal_nan=True)  # else it is random
        except Exception:  # it takes other arguments, or returns no tensor
            continue
    return False
