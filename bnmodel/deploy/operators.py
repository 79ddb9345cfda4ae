"""Move a scale and shift across one operator that rearranges, selects, averages or maximises values."""

import re
from typing import Any

import torch
from torch import Tensor, fx

from bnmodel.deploy.affine import Affine, constant_along, inverse, reshaped
from bnmodel.deploy.nodes import named_arguments, operator_name, pads, same_size, shape

VIEWS = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_as", "reshape_as",
    "clone", "contiguous", "expand_as", "expand", "alias", "_reshape_copy", "view_copy", "unsqueeze_copy",
    "squeeze_copy",
}  # fmt: skip
PERMUTATIONS = {"permute", "transpose", "t", "movedim", "swapaxes", "mT", "numpy_T", "permute_copy", "transpose_copy"}
ALONG_GIVEN = {
    **dict.fromkeys(("amax", "mean", "slice", "narrow", "select", "index_select"), "dim"),
    **dict.fromkeys(("flip", "roll"), "dims"),
}
"""Operator along given axes → the name of that argument."""
OF_LAST_AXES = re.compile(r"(max_pool|avg_pool|adaptive_avg_pool|reflection_pad|replication_pad)([123])d")


def moved(node: fx.Node, total: Affine, backwards: bool) -> Affine | None:
    """The scale and shift of the output of `node` that equal `total` of its input; None if there are none.

    backwards: the reverse, from the output to the input.
    """
    name, source = operator_name(node), node.args[0]
    if not isinstance(source, fx.Node):  # a list of tensors, or an equation
        return None
    inside, outside = shape(source), shape(node)
    if name in VIEWS:
        start, end = (outside, inside) if backwards else (inside, outside)
        elements = (one.meta["val"].numel() for one in (source, node))
        return total.map(lambda part: reshaped(part, start, end)) if same_size(*elements) else None
    if name in PERMUTATIONS:
        order = _order(node, len(inside))
        return total.map(lambda part: part.permute(inverse(order) if backwards else order))
    if name == "channel_shuffle":
        groups = named_arguments(node)["groups"]
        return total.map(lambda part: _shuffled(part, (-1, groups) if backwards else (groups, -1)))
    if name == "pixel_shuffle" and backwards:
        factor = named_arguments(node)["upscale_factor"]
        return total.map(lambda part: _unshuffled(part, factor))
    axes = _mixed_axes(node, total)
    if axes is None:
        return None
    if len(inside) == len(outside):
        return total.map(lambda part: part if constant_along(part, axes) else None)
    if backwards:
        return total.map(lambda part: _unsqueezed(part, axes))
    return total.map(lambda part: part.squeeze(axes) if constant_along(part, axes) else None)


def _order(node: fx.Node, rank: int) -> list[int]:
    """The permutation of the axes, found by applying the operator to a tensor with distinct sizes."""
    marked: Tensor = node.target(torch.empty(list(range(2, rank + 2)), device="meta"), *node.args[1:])  # type: ignore[operator]
    return [size - 2 for size in marked.shape]


def _shuffled(part: Tensor, sizes: tuple[int, int]) -> Tensor:
    """channel_shuffle: (groups, c) → (c, groups) along axis 1."""
    if part.shape[1] == 1:
        return part
    groups: Tensor = part.unflatten(1, sizes)
    return groups.transpose(1, 2).flatten(1, 2)


def _unshuffled(part: Tensor, factor: int) -> Tensor | None:
    axis = part.dim() - 3
    if not constant_along(part, [axis + 1, axis + 2]):
        return None
    return part if part.shape[axis] == 1 else part.repeat_interleave(factor * factor, axis)


def _unsqueezed(part: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        part = part.unsqueeze(axis)
    return part


def _mixed_axes(node: fx.Node, total: Affine) -> list[int] | None:
    """Axes along which the operator averages, maximises, repeats or selects values; None for any other operator.

    A scale and shift that do not vary along these axes are the same before and after it.
    """
    name, given, rank = operator_name(node), named_arguments(node), len(shape(node.args[0]))  # type: ignore[arg-type]
    found = OF_LAST_AXES.fullmatch(name)
    if (name == "amax" or (found and found[1] == "max_pool")) and not total.increases():
        return None
    if found:
        exact = found[1] != "avg_pool" or _weights_sum_to_one(given)
        return list(range(rank - int(found[2]), rank)) if exact else None
    if name in ALONG_GIVEN:
        axes = given.get(ALONG_GIVEN[name])
        return sorted(axis % rank for axis in ([axes] if isinstance(axes, int) else axes or ())) or None
    if name in ("pad", "constant_pad_nd"):
        if given.get("mode", "constant") == "constant" and (given["value"] or not total.only_scales()):
            return None
        return list(range(rank - len(given["pad"]) // 2, rank))
    return list(range(2, rank)) if name.lstrip("_").startswith("upsample_") else None


def _weights_sum_to_one(pool: dict[str, Any]) -> bool:
    """Whether an average pool with these arguments averages inputs only, without counting padding."""
    return pool.get("divisor_override") is None and not (pads(pool["padding"]) and pool["count_include_pad"])
