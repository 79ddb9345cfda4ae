"""The inputs of a model: which axis of each is the batch, and random values to run it on."""

import re
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

SIZES = {"image": (224, 64, 32, 28, 256, 640), "other": (16, 32, 8, 64, 256, 4096, 1)}
"""Kind of input → sizes to try for its dynamic axes; long ones are needed for sound."""
TRIES = 7
BATCH_NAME = re.compile(r"batch|^n$|^b$|^bs$", re.IGNORECASE)
NOT_A_BATCH = re.compile(r"seq|time|step|len|token|height|width|node|point|^h$|^w$|^t$|^l$", re.IGNORECASE)
STATE_RANK = 3  # of the state of a recurrent layer: layers × batch × features
Feed = dict[str, np.ndarray]
Dims = list[int | str]


def inputs_of(model: ModelProto) -> list[Any]:
    """The inputs that a caller must give."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def dims_of(value: Any) -> Dims:
    """Sizes of an input's or output's axes: a number, a name, or 0 if unknown."""
    return [dim.dim_param or max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim]


def batch_name(inputs: list[Any]) -> str:
    """The name of the batch axis, such as "batch" or "N"; empty if no axis is named so."""
    names = [dim for value in inputs for dim in dims_of(value) if isinstance(dim, str)]
    return next((name for name in names if BATCH_NAME.search(name) and not NOT_A_BATCH.search(name)), "")


def batch_axes(inputs: list[Any]) -> dict[str, int]:
    """Name of an input → the axis of its batch; inputs beside the batch are left out.

    The batch is the axis of that name, else a dynamic first axis. If no first axis is dynamic, it is as long as that of
    the first input. A state of a recurrent layer has it on the second axis.
    """
    axes, name = {}, batch_name(inputs)
    known = [(value.name, dims) for value in inputs if (dims := dims_of(value))]
    fixed = all(_is_number(dims[0]) for _, dims in known) and not name
    size = known[0][1][0] if fixed and known else 0  # 0: unknown
    for key, dims in known:
        if name and name in dims:
            axes[key] = dims.index(name)
        elif dims[0] == size if fixed else not (_is_number(dims[0]) or (name and NOT_A_BATCH.search(str(dims[0])))):
            axes[key] = 0
        elif len(dims) == STATE_RANK and _is_number(dims[0]) and dims[1] == size:
            axes[key] = 1
    return axes


def fixed_size(inputs: list[Any]) -> int | None:
    """The batch size if it is the same number in all inputs, else None."""
    axes = batch_axes(inputs)
    sizes = {dims_of(value)[axes[value.name]] for value in inputs if value.name in axes}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) and size > 0 else None


def tries(inputs: list[Any]) -> int:
    """How many kinds of inputs are worth trying: one if all sizes are given and no input is an index."""
    axes = batch_axes(inputs)
    free = any(not _is_number(d) for v in inputs for k, d in enumerate(dims_of(v)) if k != axes.get(v.name))
    return TRIES if free or any(_dtype(value).kind in "iu" for value in inputs) else 1


def feed(inputs: list[Any], size: int, sizes: int, rng: np.random.Generator, spread: float) -> Feed:
    """Random inputs with batch size `size`; `sizes`: index into SIZES for other dynamic axes."""
    arrays, axes = {}, batch_axes(inputs)
    for value in inputs:
        dims = dims_of(value)
        choice = SIZES["image" if len(dims) in (4, 5) else "other"]
        shape = [_length(dim, choice[sizes % len(choice)]) for dim in dims]
        if value.name in axes:
            shape[axes[value.name]] = size
        dtype = _dtype(value)
        if dtype.kind == "b" or "mask" in value.name.lower():
            arrays[value.name] = np.ones(shape, dtype)
        elif dtype == np.uint8:
            arrays[value.name] = np.asarray(rng.integers(0, 256, shape), dtype)
        elif dtype.kind in "iu":
            limit = 2 + int(3 * spread) if sizes < 3 else 2  # then an embedding may be small
            arrays[value.name] = np.asarray(rng.integers(0, limit, shape), dtype)
        else:
            arrays[value.name] = np.asarray(rng.random(shape) * spread + (spread - 1) / 2, dtype)
    return arrays


def _length(dim: int | str, free: int) -> int:
    """The length of an axis; a sum of names and numbers, as "past + 1", is that sum."""
    if isinstance(dim, int):
        return dim or free
    parts = [part.strip() for part in dim.split("+")]
    if not all(part.isidentifier() or part.isdecimal() for part in parts):
        return free
    return sum(int(part) if part.isdecimal() else free for part in parts)


def _is_number(dim: int | str) -> bool:
    return isinstance(dim, int) and dim > 0


def _dtype(value: Any) -> np.dtype:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
