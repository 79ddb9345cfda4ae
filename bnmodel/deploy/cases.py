"""The inputs on which exported files are compared with their network: single samples, mixtures and other sizes.

A constant example, such as torch.zeros, is no evidence: weights that are multiplied by 0 may be wrong. Random inputs
are added to it.
"""

import math
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from bnmodel.deploy.axes import Axes
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.reference import evaluated
from bnmodel.deploy.signature import FlatNetwork

SAMPLES = 20  # largest number of single samples
MIXED = 8  # smallest number of cases; mixtures are added up to it
FEW = 4  # number of cases if inputs are large and every output has many channels, each of which is evidence
LARGE = 100_000  # elements of inputs and outputs per sample
MANY = 16  # channels
Tensors = list[Tensor]


class OneSize(ExportError):
    """The network accepts only one size of an axis, though its graph accepts any."""


def cases_of(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> list[Tensors]:
    """Single samples of the example (all of it if the batch size is fixed), mixtures of them, and other sizes.

    Raises:
        OneSize: the network raises for single samples, or for every other size of a dynamic axis.
    """
    wanted = _wanted(captured, tensors)
    cases = _samples(network, captured, tensors, wanted) if captured.batched else [list(tensors)]
    if any(map(_is_constant, tensors)):
        cases += _random(network, captured, cases[0])
    count = len(cases)
    for step in range(min(MIXED, wanted) - count):
        mixed = _mixture(cases[step % count], cases[(step + 1) % count], step)
        if _runs(network, captured, mixed):  # indices and coordinates in floating point cannot be mixed
            cases.append(mixed)
    return cases + _other_sizes(network, captured, cases[0])


def _wanted(captured: Captured, tensors: Sequence[Tensor]) -> int:
    inputs = sum(tensor[0].numel() if tensor.dim() else 1 for tensor in tensors)
    sizes = ([size for size in port.shape if isinstance(size, int)] for port in captured.outputs)
    if max(inputs, sum(map(math.prod, sizes))) <= LARGE:
        return SAMPLES
    axes = [(port, port.channel_axis) for port in captured.outputs]
    return FEW if all(axis is not None and int(port.shape[axis]) >= MANY for port, axis in axes) else MIXED


def _samples(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor], wanted: int) -> list[Tensors]:
    """Consecutive parts of the example, each of the smallest batch that the network accepts."""
    size = _smallest_batch(network, captured, tensors)
    starts = range(0, size * min(len(tensors[0]) // size, wanted), size)
    samples = [[tensor[start : start + size].contiguous() for tensor in tensors] for start in starts]
    samples = samples or [_first(tensors, size)]
    if not all(_runs(network, captured, sample) for sample in samples):
        raise OneSize("dynamic: the network raises for parts of the example")
    return samples


def _smallest_batch(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> int:
    """1, or 2 for a network that drops a batch axis of size 1."""
    ranks = [len(port.shape) for port in captured.outputs]
    for size in (1, 2):
        with suppress(ExportError):
            outputs = evaluated(network, _first(tensors, size))
            if [output.dim() for output in outputs] == ranks and all(len(output) == size for output in outputs):
                return size
    raise OneSize("dynamic: the network takes no single sample of the example")


def _first(tensors: Sequence[Tensor], size: int) -> Tensors:
    """The first `size` samples, repeated if there are fewer."""
    return [torch.cat([tensor] * size)[:size] for tensor in tensors]


def _mixture(one: Tensors, other: Tensors, step: int) -> Tensors:
    """A weighted mean of two cases, or of a case and itself rolled along its last axis, within the inputs' range."""
    share = (0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875, 0.4375)[step % 8]
    result = []
    for a, b in zip(one, other, strict=True):
        if not a.is_floating_point():
            result.append(a)
            continue
        if a is b and a.dim():
            b = a.roll(step + 1, -1)
        result.append((a * share + b * (1 - share)).to(a.dtype))
    return result


def _is_constant(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 1 and bool(tensor.min() == tensor.max())


def _random(network: FlatNetwork, captured: Captured, case: Tensors) -> list[Tensors]:
    """The case with random values in place of constant ones, of the same size, for which the outputs are finite."""
    generator = torch.Generator().manual_seed(0)

    def values(tensor: Tensor, normal: bool) -> Tensor:
        if not _is_constant(tensor):
            return tensor
        draw = torch.randn if normal else torch.rand
        largest = tensor.flatten()[0]
        return (draw(tensor.shape, generator=generator) * (largest if largest else 1)).to(tensor.dtype)

    for normal in (True, False):  # some networks accept no negative values
        drawn = [[values(tensor, normal) for tensor in case] for _ in range(FEW)]
        if all(_runs(network, captured, one) and _is_finite(network, one) for one in drawn):
            return drawn
    return []


def _is_finite(network: FlatNetwork, case: Tensors) -> bool:
    return all(bool(output.isfinite().all()) for output in evaluated(network, case))


def _other_sizes(network: FlatNetwork, captured: Captured, case: Tensors) -> list[Tensors]:
    """The case at two other sizes of every dynamic axis but the batch's, and with all of these axes doubled."""
    axes = [{axis: name for axis, name in chosen.items() if axis or not captured.batched} for chosen in captured.axes]
    sizes = sizes_of(axes, case)
    found: list[Tensors] = []
    for name, size in sizes.items():
        others = [size * 2, size + 32, size + 8, size + 1, max(2, size // 2), size * 3]
        accepted: list[Tensors] = []
        for other in others:
            resized = with_size(captured.axes, case, name, size, other)
            if len(accepted) < 2 and other != size and _runs(network, captured, resized):
                accepted.append(resized)
        if not accepted:
            raise OneSize(f"dynamic: the network raises for every other size of {name} than {size}; leave it fixed")
        found += accepted
    if len(sizes) > 1:
        doubled = case
        for name, size in sizes.items():
            doubled = with_size(captured.axes, doubled, name, size, size * 2)
        if _runs(network, captured, doubled):
            found.append(doubled)
    return found


def sizes_of(axes: Sequence[Axes], tensors: Sequence[Tensor]) -> dict[str, int]:
    """Name of each dynamic axis → its size."""
    pairs = zip(axes, tensors, strict=True)
    return {name: tensor.shape[axis] for chosen, tensor in pairs for axis, name in chosen.items()}


def with_size(axes: Sequence[Axes], case: Sequence[Tensor], name: str, size: int, other: int) -> Tensors:
    """The case with its axes `name`, of `size`, repeated or cut to another size."""
    result = []
    for chosen, tensor in zip(axes, case, strict=True):
        for axis, label in chosen.items():
            if label == name and tensor.shape[axis] == size:
                tensor = tensor.index_select(axis, torch.arange(other) % size)
        result.append(tensor)
    return result


def _runs(network: FlatNetwork, captured: Captured, case: Tensors) -> bool:
    try:
        outputs = evaluated(network, case)
    except ExportError:
        return False
    return [output.dim() for output in outputs] == [len(port.shape) for port in captured.outputs]
