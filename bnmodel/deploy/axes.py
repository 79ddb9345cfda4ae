"""Dynamic axes: those that were asked for, and those that remain after tracing."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.nodes import Size, placeholders, shape, type_name
from bnmodel.deploy.signature import Port

AXIS_NAMES = {0: "N", 1: "L", 2: "H", 3: "W", 4: "D"}
Axes = dict[int, str]  # axis → its name


def dynamic_axes(dynamic: Any, names: Sequence[str], tensors: Sequence[Tensor]) -> tuple[tuple[Axes, ...], bool]:
    """Dynamic axes per input, and whether they were asked for: then an axis that the network fixes is an error.

    Args:
        dynamic: None for the first axis of every input that has the batch size; False or {} for none;
            axes of the first input, as (0, 2, 3) or {0: "N", 2: "H"}; or a dict of these by input name.

    Raises:
        ExportError: an axis that the input does not have, an unknown input, or one name for axes of different sizes.
    """
    if dynamic is None:
        batch = batch_size(tensors)
        return tuple({0: "N"} if tensor.dim() and len(tensor) == batch else {} for tensor in tensors), False
    if isinstance(dynamic, (np.ndarray, Tensor)):
        dynamic = tuple(dynamic.tolist())
    if dynamic is True or (isinstance(dynamic, (str, int)) and dynamic is not False and not dynamic):
        raise ExportError(f"dynamic: expected axes such as (0, 2, 3), a dict, None or False, received {dynamic!r}")
    if not dynamic:
        return tuple({} for _ in tensors), True
    by_name = isinstance(dynamic, Mapping) and all(isinstance(key, str) for key in dynamic)
    per_input = dict(dynamic) if by_name else {names[0]: dynamic}
    unknown = sorted(set(per_input) - set(names))
    if unknown:
        raise ExportError(f"dynamic: expected inputs of {', '.join(names)}, received {', '.join(unknown)}")
    sizes: dict[str, int] = {}
    pairs = zip(names, tensors, strict=True)
    return tuple(_named_axes(name, per_input.get(name, {}), tensor.shape, sizes) for name, tensor in pairs), True


def _named_axes(name: str, chosen: Any, shape: torch.Size, sizes: dict[str, int]) -> Axes:
    """Axes chosen for one input: (0, 2), or {0: "N", 2: "H"}; names may be `torch.export.Dim`.

    sizes: name → size in the example, over all inputs. Axes of different sizes have different names.
    """
    rank = len(shape)
    if not isinstance(chosen, Collection):
        raise ExportError(f"dynamic: expected axes of {name}, as in (0, 2), received {chosen!r}")
    labels = chosen if isinstance(chosen, Mapping) else dict.fromkeys(chosen)
    axes: Axes = {}
    for axis, label in labels.items():
        if not isinstance(axis, int) or not -rank <= axis < rank:
            raise ExportError(f"dynamic: {name} has axes 0 … {rank - 1}, received {axis}")
        label, axis = getattr(label, "__name__", label), axis % rank
        if label == "":
            raise ExportError(f"dynamic: expected a name of axis {axis} of {name}, received an empty one")
        if not isinstance(label, str):
            label = AXIS_NAMES.get(axis, f"axis{axis}")
            if sizes.get(label, shape[axis]) != shape[axis]:
                label = f"{label}_{name}"
        if sizes.setdefault(label, shape[axis]) != shape[axis]:
            raise ExportError(
                f"dynamic: expected one size of the axes named {label}, received {sizes[label]} and, for axis {axis} "
                f"of {name}, {shape[axis]}; give them different names"
            )
        axes[axis] = label
    return axes


def batch_size(tensors: Sequence[Tensor]) -> int:
    """Size of the first axis of the first tensor with two axes or more; scalars and vectors may be parameters."""
    return next((len(tensor) for rank in (2, 1) for tensor in tensors if tensor.dim() >= rank), 1)


def for_tracing(tensors: Sequence[Tensor], axes: Sequence[Axes]) -> tuple[Tensor, ...]:
    """The tensors with at least two elements along dynamic axes: the tracer specialises a size of 1."""
    result = []
    for tensor, chosen in zip(tensors, axes, strict=True):
        for axis in chosen:
            if tensor.shape[axis] == 1:
                tensor = torch.cat([tensor, tensor], axis)
        result.append(tensor)
    return tuple(result)


def kept_axes(
    graph: fx.Graph, axes: Sequence[Axes], asked: bool, names: Sequence[str], tensors: Sequence[Tensor]
) -> tuple[tuple[Axes, ...], list[str]]:
    """The axes that are still dynamic after tracing, and a note on each other one."""
    kept: list[Axes] = []
    notes: list[str] = []
    for name, tensor, node, chosen in zip(names, tensors, placeholders(graph), axes, strict=True):
        fixed = [axis for axis in chosen if isinstance(shape(node)[axis], int)]
        if fixed and asked:
            where = ", ".join(f"axis {axis} ({chosen[axis]}) at {tensor.shape[axis]}" for axis in fixed)
            raise ExportError(
                f"dynamic: the network fixes {where} of {name}; use sizes taken from the input, "
                "or leave the axis out of `dynamic`"
            )
        notes.extend(f"axis {axis} of {name} is fixed at {tensor.shape[axis]} by the network" for axis in fixed)
        kept.append({axis: label for axis, label in chosen.items() if axis not in fixed})
    return tuple(kept), notes


def ports(names: Sequence[str], nodes: Sequence[fx.Node], graph: fx.Graph, axes: Sequence[Axes]) -> tuple[Port, ...]:
    """Ports of a graph's inputs or outputs, whose dynamic axes have names instead of the tracer's symbols."""
    labels: dict[str, str] = {}
    for node, chosen in zip(placeholders(graph), axes, strict=True):
        for axis, label in chosen.items():
            labels.setdefault(str(node.meta["val"].shape[axis]), label)
    return tuple(
        Port(name, type_name(node), tuple(_named_size(size, labels) for size in shape(node)))
        for name, node in zip(names, nodes, strict=True)
    )


def _named_size(size: Size, labels: Mapping[str, str]) -> int | str:
    if isinstance(size, int):
        return size
    return re.sub(r"\w+", lambda symbol: labels.get(symbol[0], symbol[0]), str(size))
