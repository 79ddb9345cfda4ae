"""What is checked before a network is exported: wrappers, modes, weights and statistics."""

import copy
import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from types import CellType, FunctionType, GeneratorType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from bnmodel import CustomBatchNorm
from bnmodel.deploy.errors import ExportError, first_line
from bnmodel.nn.dropout import Dropout

NORMS = (CustomBatchNorm, _BatchNorm)
WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Class of a wrapper → attribute that holds the wrapped network."""
SHARED = (type(threading.Lock()), type(threading.RLock()), io.IOBase, threading.Thread, ModuleType, GeneratorType)
"""What cannot be copied, and that copies of a network share."""


def exportable(module: nn.Module) -> nn.Module:
    """An eval-mode copy of `module` on the CPU, without gradients; the original is unchanged.

    Raises:
        ExportError: the network has a layer in train mode under a root in eval mode, a batch norm without running
            statistics, weights that are not finite, are on the meta device or are uninitialised, or is of a kind that
            cannot be exported (scripted, quantised).
    """
    if not isinstance(module, nn.Module):
        raise ExportError(f"expected a torch.nn.Module, received {type(module).__name__}")
    module = _unwrapped(module)
    _refuse_kinds(module)
    _refuse_tensors(module)
    if module.training:
        message = f"{type(module).__name__} is in train mode; its eval copy is exported"
        warnings.warn(message, stacklevel=4)
    else:
        _refuse_train_mode(module)
    copied = detached_copy(module)
    with suppress(NotImplementedError):  # the module of an ExportedProgram has the mode that it was exported in
        copied.eval()
    for name, norm in named_norms(copied).items():
        _refuse_statistics(name, norm)
    return copied.requires_grad_(False).cpu()


def named_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Batch norms, `CustomBatchNorm` and torch's, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, NORMS)}


def detached_copy(module: nn.Module) -> nn.Module:
    """`copy.deepcopy`, where tensors that hang on an autograd graph (weight_norm, pruning) are detached."""
    attributes = [value for part in module.modules() for value in vars(part).values()]
    memo: dict[int, Any] = {
        id(value): value.detach().clone() for value in attributes if isinstance(value, Tensor) and not value.is_leaf
    }
    memo |= {id(value): value for value in attributes if isinstance(value, SHARED)}
    try:
        copied = copy.deepcopy(module, memo)
        for part in copied.modules():
            _rebind(vars(part), memo)
        return copied
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__} cannot be copied ({first_line(error)}); remove what it holds besides tensors, "
            "such as open files or locks"
        ) from error


def _rebind(functions: MutableMapping[Any, Any], memo: Mapping[int, Any]) -> None:
    """Let hooks and replaced methods that close over parts of the network close over those of its copy.

    memo: id of what was copied → the copy. `copy.deepcopy` takes a function as it is.
    """
    for key, value in functions.items():
        if isinstance(value, FunctionType) and value.__closure__:
            cells = [_rebound(cell, memo) for cell in value.__closure__]
            if any(new is not old for new, old in zip(cells, value.__closure__, strict=True)):
                copied = FunctionType(
                    value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells)
                )
                copied.__kwdefaults__ = value.__kwdefaults__
                functions[key] = copied
        elif isinstance(value, OrderedDict):  # hooks
            _rebind(value, memo)


def _rebound(cell: CellType, memo: Mapping[int, Any]) -> CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # not assigned yet
        return cell
    return CellType(memo[id(content)]) if id(content) in memo else cell


def _unwrapped(module: nn.Module) -> nn.Module:
    while (attribute := WRAPPERS.get(type(module).__name__)) is not None and hasattr(module, attribute):
        inner = getattr(module, attribute)
        message = f"{type(module).__name__}: the network that it wraps, {type(inner).__name__}, is exported"
        warnings.warn(message, stacklevel=5)
        if inner.training != module.training and not module.training:
            inner = detached_copy(inner).eval()
        module = inner
    return module


def _refuse_kinds(module: nn.Module) -> None:
    for name, part in module.named_modules():
        where, kind = name or "the network", type(part)
        if isinstance(part, torch.jit.ScriptModule):
            raise ExportError(f"{where}: scripted or traced ({kind.__name__}); pass the Python module it was made from")
        if ".ao." in f"{kind.__module__}." or "quantiz" in kind.__module__:
            raise ExportError(
                f"{where}: quantised, or prepared for it ({kind.__module__}.{kind.__name__}); export the float network "
                "and quantise the exported file"
            )


def _refuse_tensors(module: nn.Module) -> None:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    lazy = [
        name for name, tensor in tensors.items() if isinstance(tensor, (UninitializedBuffer, UninitializedParameter))
    ]
    if lazy:
        raise ExportError(f"{', '.join(lazy)}: uninitialised (lazy layer); run one batch through the network first")
    meta = [name for name, tensor in tensors.items() if tensor.is_meta]
    if meta:
        raise ExportError(f"{_some(meta)}: on the meta device, without values; load the weights first")
    sparse = [f"{name} ({tensor.layout})" for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        raise ExportError(f"{_some(sparse)}: expected dense weights; convert them with to_dense()")
    broken = [name for name, tensor in module.named_parameters() if _has(tensor, finite=False)]
    # a buffer may hold −inf, such as an attention mask
    broken += [name for name, tensor in module.named_buffers() if _has(tensor, finite=True)]
    if broken:
        raise ExportError(f"not finite: {_some(broken)}; the training diverged: train again with a lower learning rate")


def _has(tensor: Tensor, finite: bool) -> bool:
    """Whether a tensor has NaN values, or, unless `finite`, infinite ones."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized:
        return False
    return bool(tensor.isnan().any() if finite else not tensor.isfinite().all())


def _refuse_train_mode(module: nn.Module) -> None:
    for name, part in module.named_modules():
        active = isinstance(part, (*NORMS, nn.modules.instancenorm._InstanceNorm, nn.RReLU)) or (
            isinstance(part, (_DropoutNd, Dropout)) and part.p > 0
        )
        if part.training and active:
            raise ExportError(
                f"{name}: {type(part).__name__} in train mode, while the network is in eval mode; "
                f"call eval() on the network before the export"
            )


def _refuse_statistics(name: str, norm: nn.Module) -> None:
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ExportError(
            f"{name}: no running statistics, so that outputs in eval mode depend on the batch; train with "
            "track_running_stats=True, or recalibrate"
        )
    assert isinstance(mean, Tensor)
    assert isinstance(var, Tensor)
    if not (mean.isfinite().all() and var.isfinite().all()):
        raise ExportError(f"{name}: running statistics that are not finite; recalibrate them, or train again")
    if (var + norm.eps <= 0).any():  # type: ignore[operator]
        raise ExportError(
            f"{name}: variance of {float(var.min()):.3g} in running_var, expected at least 0; "
            "recalibrate the statistics, or load the weights again"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
