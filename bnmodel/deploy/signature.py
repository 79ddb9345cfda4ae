"""Names, types and shapes of the inputs and outputs of an exported file.

A network may take and return nested tuples, lists and dicts. Its exported files take and return a flat list of named
tensors; `FlatNetwork` converts between the two.
"""

import copy
import dataclasses
import inspect
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bnmodel.deploy.copying import detached_copy
from bnmodel.deploy.errors import ExportError

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16,
        torch.int32, torch.int64, torch.bool, torch.complex64,
    )
}  # fmt: skip

RESERVED = frozenset([*keyword.kwlist, "self", "torch", "device", "inf", "nan", "NoneType", "pytree", "fx_pytree", "_"])
"""Names that generated code cannot use: Python's keywords, and names that the code refers to."""


@dataclass(frozen=True)
class Port:
    """One input or output of an exported file. `shape`: sizes, or names of dynamic axes."""

    name: str
    type: str
    shape: tuple[int | str, ...]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "shape": list(self.shape)}

    @property
    def channel_axis(self) -> int | None:
        """Axis of the channels, 1 of (N, C, …) and 0 of (C,); None if its size is dynamic, or there is none."""
        axis = min(1, len(self.shape) - 1)
        return axis if self.shape and isinstance(self.shape[axis], int) else None


@dataclass(frozen=True)
class Arguments:
    """An example split into named tensors and other arguments, which become constants of the exported file."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    leaves: tuple[Any, ...]  # None in place of a tensor
    indices: tuple[int, ...]  # of the tensors among the leaves
    spec: pytree.TreeSpec

    def bind(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The network's arguments, with `tensors` in place of the example's."""
        leaves = list(self.leaves)
        for index, tensor in zip(self.indices, tensors, strict=True):
            leaves[index] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return tuple(args), dict(kwargs)


def arguments(module: nn.Module, example: Any, names: str | Sequence[str] | None = None) -> Arguments:
    """Split `example` into named tensors.

    Args:
        example: one tensor or array; a tuple of positional arguments; or a dict of keyword arguments.
        names: of the tensors, in order; by default those of forward's parameters.

    Raises:
        ExportError: the example does not fit the network's signature, or contains no tensor.
    """
    args, kwargs, parameters = _bound(module, example)
    with_paths, spec = pytree.tree_flatten_with_path((list(args), kwargs))
    found, tensors, leaves, indices = [], [], [], []
    for index, (path, leaf) in enumerate(with_paths):
        if isinstance(leaf, np.ndarray):
            leaf = _from_numpy(leaf)
        if isinstance(leaf, Tensor):
            leaf = _supported(leaf)
            found.append(_input_name(path, parameters))
            tensors.append(leaf)
            indices.append(index)
        elif _holds_tensors(leaf):
            raise ExportError(
                f"example: expected tensors in tuples, lists or dicts, received {type(leaf).__name__} for "
                f"{_input_name(path, parameters)}, whose tensors would become constants; pass them as arguments"
            )
        leaves.append(None if isinstance(leaf, Tensor) else leaf)
    if not tensors:
        raise ExportError(f"example: expected at least one tensor, received {type(example).__name__} without any")
    chosen = _chosen("input", names, found)
    return Arguments(chosen, tuple(tensors), tuple(leaves), tuple(indices), spec)


def _holds_tensors(leaf: Any) -> bool:
    """Whether an argument is an object of another class that contains tensors, such as a dataclass or a UserDict."""
    inside = leaf if isinstance(leaf, Mapping) else getattr(leaf, "__dict__", {})
    found = any(isinstance(value, Tensor) for value in pytree.tree_leaves(list(inside.values())))
    return found and not isinstance(leaf, (nn.Module, type))


def _from_numpy(array: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(np.asarray(array, array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise ExportError(f"example: expected one of {', '.join(DTYPES)}, received {array.dtype}") from error


def _supported(tensor: Tensor) -> Tensor:
    if tensor.is_nested:
        raise ExportError("example: expected dense tensors, received a nested one; pass a padded tensor and a mask")
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise ExportError(f"example: expected dense tensors with values, received {tensor.layout} on {tensor.device}")
    if tensor.dtype not in DTYPES.values():
        raise ExportError(f"example: expected one of {', '.join(DTYPES)}, received {tensor.dtype}")
    if not tensor.numel():
        raise ExportError(f"example: expected at least one sample, received shape {list(tensor.shape)}")
    return tensor.detach().cpu().contiguous()


def signature_of(module: nn.Module) -> inspect.Signature:
    """The signature of forward; any positional arguments if it has none."""
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):
        return inspect.Signature([inspect.Parameter("input", inspect.Parameter.VAR_POSITIONAL)])


def _bound(module: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any], list[str]]:
    """Positional arguments, keyword arguments, and the names of forward's positional parameters."""
    signature = signature_of(module)
    parameters = [
        f"*{one.name}" if one.kind is one.VAR_POSITIONAL else one.name
        for one in signature.parameters.values()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
    ]
    whole: tuple[tuple[Any, ...], dict[str, Any]] = ((example,), {})
    candidates = [whole]
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        candidates = [((), dict(example)), whole]
    elif isinstance(example, (tuple, list)):
        several = isinstance(example, tuple) or sum(_required(p) for p in signature.parameters.values()) > 1
        candidates = [(tuple(example), {}), whole] if several else [whole, (tuple(example), {})]
    for args, kwargs in candidates:
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            continue
        return args, kwargs, parameters
    received = sorted(example) if isinstance(example, Mapping) else type(example).__name__
    raise ExportError(f"example: expected arguments of forward{signature}, received {received}")


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind == parameter.POSITIONAL_OR_KEYWORD


def _input_name(path: tuple[Any, ...], parameters: list[str]) -> str:
    """(0 for args or 1 for kwargs, position or key, …) → the parameter's name and the path inside it."""
    kind, first, *inside = [key_of(part) for part in path]
    if kind == "1":
        return "_".join([first, *inside])
    position = int(first)
    if position < len(parameters) and not parameters[position].startswith("*"):
        return "_".join([parameters[position], *inside])
    starred = next((name[1:] for name in parameters if name.startswith("*")), "input")
    count = position - (len(parameters) - 1)
    return "_".join([starred, *([str(count)] if count else []), *inside])


def key_of(part: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)


def _chosen(kind: str, asked: str | Sequence[str] | None, found: Sequence[str]) -> tuple[str, ...]:
    """The names asked for, checked; by default those found, made distinct identifiers."""
    if asked is None:
        return _distinct(found)
    names = tuple(asked) if isinstance(asked, (list, tuple)) else (asked,)
    valid = len(names) == len(found) and len(set(names)) == len(names) and all(map(_is_name, names))
    if not valid:
        raise ExportError(f"{kind}: expected {len(found)} distinct identifiers ({', '.join(found)}), received {names}")
    return names


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and name.isascii() and name not in RESERVED


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Distinct identifiers made from `names`."""
    result: list[str] = []
    used: set[str] = set()
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII) or "tensor"
        base = "tensor" if not base.strip("_") else f"_{base}" if base[0].isdigit() else base
        base = f"{base}_" if base in RESERVED else base
        unique, count = base, 1
        while unique.lower() in used:  # torch.export changes names to lower case
            unique, count = f"{base}_{count}", count + 1
        result.append(unique)
        used.add(unique.lower())
    return tuple(result)


def named_tensors(output: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a network's output with their names: keys of dicts, fields, positions.

    Raises:
        ExportError: a part of the output is neither a tensor, a container, a number nor None.
    """
    if isinstance(output, Tensor):
        if output.layout != torch.strided:
            raise ExportError(f"output {'_'.join(path)}: expected dense tensors, received {output.layout}")
        yield "_".join(path), output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from named_tensors(value, (*path, str(key)))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from named_tensors(getattr(output, field.name), (*path, field.name))
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        for key in output._fields:
            yield from named_tensors(getattr(output, key), (*path, key))
    elif isinstance(output, (list, tuple)):
        for position, value in enumerate(output):
            yield from named_tensors(value, (*path, str(position)) if path else ("output", str(position)))
    elif output is not None and not isinstance(output, (bool, int, float, str, torch.SymInt, torch.SymFloat)):
        where = " ".join(filter(None, ["output", "_".join(path)]))
        raise ExportError(f"{where}: expected tensors in tuples, lists or dicts, received {type(output).__name__}")


def with_tensors(output: Any, tensors: Iterator[Any]) -> Any:
    """The same containers with other tensors, in the order of `named_tensors`."""
    if isinstance(output, Tensor):
        return next(tensors)
    if isinstance(output, Mapping):
        copied: Any = copy.copy(output)
        for key, value in output.items():
            copied[key] = with_tensors(value, tensors)
        return copied
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        copied = copy.copy(output)
        for field in dataclasses.fields(output):
            object.__setattr__(copied, field.name, with_tensors(getattr(output, field.name), tensors))
        return copied
    if isinstance(output, (tuple, list)):
        parts = [with_tensors(value, tensors) for value in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def output_names(output: Any, asked: str | Sequence[str] | None, inputs: Sequence[str]) -> tuple[str, ...]:
    """Names of the tensors in `output`, distinct from those of the inputs."""
    found = []
    for name, tensor in named_tensors(output):
        found.append(name or "output")
        if tensor.dtype not in DTYPES.values():
            raise ExportError(f"output {found[-1]}: expected one of {', '.join(DTYPES)}, received {tensor.dtype}")
    if not found:
        raise ExportError(f"output: expected at least one tensor, received {type(output).__name__} without any")
    if asked is None:
        return _distinct([f"{name}_out" if name in inputs else name for name in found])
    names = _chosen("output", asked, found)
    if set(names) & set(inputs):
        raise ExportError(f"output: {', '.join(sorted(set(names) & set(inputs)))} is also the name of an input")
    return names


class FlatNetwork(nn.Module):
    """`model` as a function from a flat list of tensors to a flat tuple of tensors."""

    def __init__(self, model: nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.model = model
        self.arguments = arguments

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in named_tensors(self.call(*tensors)))

    def copy(self) -> "FlatNetwork":
        """A copy that shares the parameters, and keeps what forward stores in attributes and buffers to itself."""
        return FlatNetwork(detached_copy(self.model, share_parameters=True), self.arguments)

    def call(self, *tensors: Tensor) -> Any:
        """The network's output in its own containers."""
        args, kwargs = self.arguments.bind(tensors)
        return self.model(*args, **kwargs)
