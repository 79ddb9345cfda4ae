"""Copy a network, also if `copy.deepcopy` alone fails or keeps references to the original."""

import copy
import functools
import io
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping, MutableSequence
from types import CellType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

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
"""Types that cannot be copied and are shared by copies of a network."""
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def detached_copy(module: nn.Module, share_parameters: bool = False) -> nn.Module:
    """`copy.deepcopy` of a network, with tensors that have a gradient function (weight_norm, pruning) detached.

    Attributes that cannot be copied and hold no tensor or module are shared, as are parameters if asked for.

    Raises:
        ExportError: another attribute cannot be copied.
    """
    attributes = [value for part in module.modules() for value in vars(part).values()]
    memo: dict[int, Any] = {
        id(leaf): leaf.detach().clone()
        for leaf in pytree.tree_leaves(attributes)
        if isinstance(leaf, Tensor) and not leaf.is_leaf
    }
    memo |= {id(value): value for value in attributes if isinstance(value, SHARED)}
    if share_parameters:
        memo |= {id(parameter): parameter for parameter in module.parameters()}
    try:
        try:
            before = dict(memo)
            copied = copy.deepcopy(module, memo)
        except Exception:
            memo = before | {id(value): value for value in attributes if _cannot_be_copied(value)}
            copied = copy.deepcopy(module, memo)
        modes = {name: part.training for name, part in module.named_modules()}
        for name, part in copied.named_modules():
            part.training = modes.get(name, part.training)  # subclasses of GraphModule do not copy it
            _rebind(vars(part), memo, set())
        return copied
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__} cannot be copied ({first_line(error)}); remove what it holds besides tensors, "
            "such as open files or locks"
        ) from error


def unregistered(module: nn.Module) -> list[nn.Module]:
    """Modules in plain lists, tuples and dicts of a network, which `to()` and `double()` do not reach."""
    registered = set(module.modules())
    held = [leaf for part in registered for leaf in pytree.tree_leaves(list(vars(part).values()))]
    found = {leaf for leaf in held if isinstance(leaf, nn.Module)} - registered
    return list(found)


def _cannot_be_copied(value: Any) -> bool:
    leaves = pytree.tree_leaves(value)
    if not leaves or any(isinstance(leaf, (nn.Module, Tensor, *PLAIN)) for leaf in leaves):
        return False
    try:
        copy.deepcopy(value)
    except Exception:  # each type has its own
        return True
    return False


def _rebind(values: MutableMapping[Any, Any] | MutableSequence[Any], memo: Mapping[int, Any], seen: set[int]) -> None:
    """Make closures and weak references in `values`, which `copy.deepcopy` keeps, refer to the copy of the network.

    memo: id of an original → its copy.
    """
    seen.add(id(values))
    for key, value in list(values.items() if isinstance(values, MutableMapping) else enumerate(values)):
        if type(value) in (list, dict, OrderedDict):  # hooks are in an OrderedDict
            if id(value) not in seen:
                _rebind(value, memo, seen)
        elif (rebound := _rebound(value, memo)) is not value:
            values[key] = rebound


def _rebound(value: Any, memo: Mapping[int, Any]) -> Any:
    """A closure (also within a partial), method or weak reference of the copy; any other value as it is."""
    if isinstance(value, FunctionType) and value.__closure__:
        cells = [_rebound_cell(cell, memo) for cell in value.__closure__]
        if all(new is old for new, old in zip(cells, value.__closure__, strict=True)):
            return value
        copied = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells))
        copied.__kwdefaults__ = value.__kwdefaults__
        return copied
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if isinstance(value, functools.partial):
        inner = _rebound(value.func, memo)
        return value if inner is value.func else functools.partial(inner, *value.args, **value.keywords)
    if type(value) is weakref.ref and id(value()) in memo:
        return weakref.ref(memo[id(value())])
    return value


def _rebound_cell(cell: CellType, memo: Mapping[int, Any]) -> CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # not assigned yet
        return cell
    new = memo[id(content)] if id(content) in memo else _rebound(content, memo)
    return cell if new is content else CellType(new)
