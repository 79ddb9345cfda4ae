"""Scale and shift, y = scale · x + shift per element, and how they change when x is reshaped.

`scale` and `shift` are float64 tensors with as many axes as x, of size 1 along axes on which they do not vary.
Batch sizes and other dynamic sizes are symbols; a reshape is only followed if it is exact for all their values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnmodel.deploy.nodes import Size, same_size


@dataclass(frozen=True)
class Affine:
    scale: Tensor
    shift: Tensor

    def then(self, other: "Affine") -> "Affine":
        """First this, then `other`."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)

    def only_scales(self) -> bool:
        return not bool(self.shift.any())

    def increases(self) -> bool:
        """Whether the order of values is kept, so that a maximum can be taken before or after."""
        return bool((self.scale > 0).all())

    def along(self, axis: int) -> "Affine | None":
        """Scale and shift as vectors along one axis; None if they vary along another."""
        parts = [compressed(part) for part in (self.scale, self.shift)]
        rank = parts[0].dim()
        if any(size != 1 for part in parts for other, size in enumerate(part.shape) if other != axis % rank):
            return None
        return Affine(parts[0].flatten(), parts[1].flatten())

    def map(self, change: Any) -> "Affine | None":
        """Apply `change` (Tensor → Tensor or None) to both parts."""
        scale, shift = change(compressed(self.scale)), change(compressed(self.shift))
        return None if scale is None or shift is None else Affine(scale, shift)


def compressed(tensor: Tensor) -> Tensor:
    """The tensor with size 1 along every axis on which all values are the same."""
    for axis, size in enumerate(tensor.shape):
        if size > 1:
            first = tensor.narrow(axis, 0, 1)
            if bool((tensor == first).all()):
                tensor = first
    return tensor


def _hint(size: Size) -> int:
    return size if isinstance(size, int) else int(size.node.hint if size.node.hint is not None else 2)


def groups(before: Sequence[Size], after: Sequence[Size]) -> list[tuple[list[int], list[int]]] | None:
    """Groups of axes of `before` and `after` that hold the same elements in the same order; None if that is unclear.

    (N, 20, 4, 4) and (N, 320) → [([0], [0]), ([1, 2, 3], [1])].
    """
    result: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left: list[int] = []
        right: list[int] = []
        while not (left and right and _as_many(before, left, after, right)):
            fewer = math.prod(_hint(before[axis]) for axis in left) <= math.prod(_hint(after[axis]) for axis in right)
            if i < len(before) and (fewer or j == len(after)):
                left.append(i)
                i += 1
            elif j < len(after):
                right.append(j)
                j += 1
            elif result and _as_many(before, left, after, right):  # the remaining axes have size 1
                result[-1][0].extend(left)
                result[-1][1].extend(right)
                return result
            else:
                return None
        result.append((left, right))
    return result


def _as_many(before: Sequence[Size], left: Sequence[int], after: Sequence[Size], right: Sequence[int]) -> bool:
    """Whether axes `left` of `before` hold as many elements as `right` of `after`, for all values of the symbols."""
    return same_size(math.prod(before[axis] for axis in left), math.prod(after[axis] for axis in right))


def reshaped(tensor: Tensor, before: Sequence[Size], after: Sequence[Size]) -> Tensor | None:
    """A tensor that broadcasts against x of shape `before`, for x.reshape(after); None if that is unclear."""
    found = groups(before, after)
    if found is None:
        return None
    sizes: list[int] = [1] * len(after)
    full: list[int] = [1] * len(before)
    for left, right in found:
        if all(tensor.shape[axis] == 1 for axis in left):
            continue
        moving = [axis for axis in left if before[axis] != 1]
        target = [axis for axis in right if after[axis] != 1]
        if len(moving) == 1 and len(target) == 1:  # one axis, unchanged
            full[moving[0]] = sizes[target[0]] = tensor.shape[moving[0]]
            continue
        if not all(isinstance(before[axis], int) for axis in left):
            return None
        if not all(isinstance(after[axis], int) for axis in right):
            return None
        for axis in left:
            full[axis] = before[axis]
        for axis in right:
            sizes[axis] = after[axis]
    return compressed(tensor.expand(full).reshape(sizes)) if math.prod(full) == math.prod(sizes) else None


def inverse(order: Sequence[int]) -> list[int]:
    """The permutation that undoes `order`."""
    return [order.index(axis) for axis in range(len(order))]


def constant_along(tensor: Tensor, axes: Sequence[int]) -> bool:
    return all(tensor.shape[axis] == 1 for axis in axes)


def split(tensor: Tensor, axis: int, sizes: Sequence[int]) -> list[Tensor]:
    """Parts of a broadcastable tensor along one axis."""
    return [tensor] * len(sizes) if tensor.shape[axis] == 1 else list(torch.split(tensor, list(sizes), axis))
