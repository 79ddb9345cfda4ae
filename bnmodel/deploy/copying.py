"""Copy a network, also where `copy.deepcopy` alone fails or leaves references to the original."""

import copy
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from types import CellType, FunctionType, GeneratorType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bnmodel.deploy.errors import ExportError, first_line

SHARED = (
    type(threading.Lock()),
    type(threading.RLock()),
    io.IOBase,
    threading.Thread,
    ModuleType,
    GeneratorType,
    torch.jit.ScriptFunction,
)
"""What cannot be copied, and that copies of a network share."""


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
