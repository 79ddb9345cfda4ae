"""Read batches of any usual form: inputs, (inputs, targets), dicts, or anything else with `forward=`."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST_BYTES = 4 << 30  # so that an endless iterator is refused

Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Batch:
    """A batch as the passes use it.

    Attributes:
        inputs: what the model, or `forward`, is called with.
        targets: or None; the whole batch if it is no pair of inputs and targets.
        samples: length of the first axis of the first tensor, or of a list of images (C, H, W).
        number: position among the batches.
    """

    inputs: Any
    targets: Any
    samples: int
    number: int = 0


def require_functions(**functions: object) -> None:
    """Raise TypeError if an argument is neither None nor a function."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name}: expected a function, received {function!r}")


def required_inputs(model: nn.Module) -> int:
    """How many positional inputs the model's forward needs, at least 1."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # scripted
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(sum(each.kind in positional and each.default is each.empty for each in parameters), 1)


def read_batches(batches: Iterable[Any], device: torch.device | None, wanted: int | None, name: str) -> list[Batch]:
    """All batches, held in memory.

    Args:
        batches: an iterable of inputs or of (inputs, targets) pairs.
        device: where the model is; None leaves tensors where they are.
        wanted: number of inputs that the model needs; None if `forward=` unpacks the batches itself.
        name: of the argument, for errors.

    Raises:
        ValueError: no batches, or a form that is not understood.
    """
    if isinstance(batches, (Tensor, np.ndarray)):
        raise ValueError(
            f"{name}: expected an iterable of batches, received one array of shape {list(batches.shape)}; "
            "split it: x.split(64)"
        )
    if isinstance(batches, (Mapping, str)):
        raise ValueError(f"{name}: expected an iterable of batches, received {type(batches).__name__}; use [batch]")
    if not isinstance(batches, Iterable):
        remedy = "; use torch.utils.data.DataLoader(dataset, batch_size=64)" if hasattr(batches, "__getitem__") else ""
        raise ValueError(f"{name}: expected an iterable of batches, received {type(batches).__name__}{remedy}")
    if _is_one_batch(batches):
        raise ValueError(f"{name}: expected a list of batches, received one pair; use [(inputs, targets)]")
    found: list[Batch] = []
    held = 0
    for each in batches:
        batch = _read(each, device, wanted, name)
        held += sum(_bytes(tensor) for tensor in tensors(batch.inputs))
        if held > MOST_BYTES:
            raise ValueError(
                f"{name}: expected at most {MOST_BYTES >> 30} GiB, all held in memory, received more; a few hundred "
                "samples suffice: itertools.islice(batches, 10)"
            )
        if batch.samples:
            found.append(replace(batch, number=len(found)))
    if not found:
        raise ValueError(f"{name}: expected at least one batch, received none; a generator can be used only once")
    return found


def _bytes(tensor: Tensor) -> int:
    """Memory of the values; a sparse tensor has no `nbytes`."""
    values = tensor._nnz() if tensor.is_sparse else tensor.numel()
    return values * tensor.element_size()


def _is_one_batch(batches: Any) -> bool:
    """Whether `batches` is a tuple of inputs and targets, which have as many rows but other axes or another type."""
    arrays = isinstance(batches, tuple) and all(isinstance(each, (Tensor, np.ndarray)) for each in batches)
    if not arrays or len(batches) != 2:
        return False
    x, y = batches
    return x.ndim > 1 and y.ndim > 0 and len(x) == len(y) and (x.ndim != y.ndim or x.dtype != y.dtype)


def _read(batch: Any, device: torch.device | None, wanted: int | None, name: str) -> Batch:
    batch = map_leaves(batch, lambda _, leaf: _to_tensor(leaf, device))
    samples = _samples(batch)
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if wanted is None:
        return Batch(batch, batch[1] if pair else batch, samples)
    if isinstance(batch, (tuple, list)):
        if len(batch) == 1:
            alone = isinstance(batch[0], (tuple, list))  # one argument that is a list
            return Batch(tuple(batch) if alone else batch[0], None, samples)
        if wanted > 1 and isinstance(batch[0], Tensor) and len(batch) in (wanted, wanted + 1):
            return Batch(tuple(batch[:wanted]), batch[wanted] if len(batch) > wanted else None, samples)
        if pair and _are_images(*batch):  # as detectors take them: one argument
            return Batch((batch[0],), batch[1], samples)
        if not pair:
            raise ValueError(
                f"{name}: expected inputs or (inputs, targets), received {len(batch)} items; "
                + ("write (images,) for a list of images, or " if _are_images(batch) else "")
                + "pass forward=lambda model, batch: model(...)"
            )
        return Batch(batch[0], batch[1], samples)
    if not isinstance(batch, (Tensor, Mapping)):
        raise ValueError(
            f"{name}: expected tensors, (inputs, targets) or dicts, received {type(batch).__name__}; "
            "pass forward=lambda model, batch: model(...)"
        )
    return Batch(batch, batch if isinstance(batch, Mapping) else None, samples)


def _are_images(part: Any, targets: Any = None) -> bool:
    """Whether `part` is a list of images (C, H, W), one per target, rather than several inputs (N, ...)."""
    if type(part) is not list or not part or not all(isinstance(each, Tensor) and each.dim() == 3 for each in part):
        return False
    return not isinstance(targets, (Tensor, list, tuple)) or len(targets) == len(part)


def _samples(batch: Any) -> int:
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    if parts and _are_images(*parts[:2]):
        return len(parts[0])
    return next((tensor.size(0) for tensor in tensors(batch) if tensor.dim()), 1)


def call(model: nn.Module, batch: Batch, forward: Forward | None) -> Any:
    """The model's outputs for a batch: dicts by keyword, tuples by position.

    It gets copies of the tensors: a model may normalise its input in place.
    """
    inputs = map_leaves(batch.inputs, lambda _, leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf)
    if forward is not None:
        return forward(model, inputs)
    if isinstance(inputs, Mapping):
        try:
            return model(**inputs)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            remedy = f"pass forward=lambda model, batch: model(batch[{next(iter(inputs))!r}])"
            raise TypeError(f"{error}; dicts are passed by keyword: {remedy}") from error
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors within tuples, lists, dicts, dataclasses and objects of a batch class of one's own."""
    return (tensor for _, tensor in named_tensors(value))


def named_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """As `tensors`, each with the path of its keys, positions and field names, such as "boxes.0"."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from named_tensors(item, f"{prefix}.{index}" if prefix else str(index))
    else:
        for name in _attributes(value):
            yield from named_tensors(getattr(value, name), f"{prefix}.{name}" if prefix else name)


def _attributes(value: Any) -> list[str]:
    """Names of the fields of a dataclass, or of the tensors that another object has as attributes."""
    if isinstance(value, (type, nn.Module, Tensor)):
        return []
    if is_dataclass(value):
        return [field.name for field in fields(value)]
    return [name for name, each in getattr(value, "__dict__", {}).items() if isinstance(each, (Tensor, np.ndarray))]


def map_leaves(value: Any, change: Callable[[str, Any], Any], prefix: str = "") -> Any:
    """The same structure with change(name, leaf) in place of each leaf, with the names of `named_tensors`."""

    def inner(key: Any, item: Any) -> Any:
        return map_leaves(item, change, f"{prefix}.{key}" if prefix else str(key))

    if isinstance(value, Mapping):
        return _rebuilt(value, {key: inner(key, item) for key, item in value.items()})
    if isinstance(value, (tuple, list)):
        return _rebuilt(value, [inner(index, item) for index, item in enumerate(value)])
    names = _attributes(value)
    if not names:
        return change(prefix, value)
    changed = copy.copy(value)
    for name in names:
        object.__setattr__(changed, name, inner(name, getattr(value, name)))  # may be frozen
    return changed


def _rebuilt(original: Any, items: Any) -> Any:
    """`items` as the type of `original`, or as they are if its constructor takes something else."""
    try:
        return type(original)(*items) if hasattr(original, "_fields") else type(original)(items)
    except TypeError:
        return items


def _to_tensor(leaf: Any, device: torch.device | None) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
        leaf = torch.from_numpy(np.asarray(leaf, leaf.dtype.newbyteorder("="), order="C"))  # else torch raises
    return leaf.to(device) if isinstance(leaf, Tensor) and device is not None else leaf


def mixed(batches: list[Batch], size: int, most: int) -> list[Batch] | None:
    """The same inputs in batches of `size` from all parts of the data, at most `most` samples.

    None if the inputs are not tensors that can be concatenated.
    """
    leaves = [dict(named_tensors(batch.inputs)) for batch in batches]
    shapes = {name: tensor.shape[1:] for name, tensor in leaves[0].items()}
    for batch, own in zip(batches, leaves, strict=True):
        if {name: t.shape[1:] for name, t in own.items() if t.dim() and t.size(0) == batch.samples} != shapes:
            return None
    total = sum(batch.samples for batch in batches)
    count = min(total, most)
    parts = max(count // size, 1)
    chosen = (torch.arange(count) * total) // count  # evenly spread
    joined = {name: torch.cat([own[name] for own in leaves]) for name in shapes}
    result = []
    for part in range(parts):
        index = chosen[part::parts]
        picked = {name: tensor.index_select(0, index.to(tensor.device)) for name, tensor in joined.items()}
        inputs = map_leaves(batches[0].inputs, picked.get)
        result.append(Batch(inputs, None, len(index)))
    return result
