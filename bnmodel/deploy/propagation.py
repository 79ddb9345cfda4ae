"""Find the linear operators that a batch norm can be folded into, through the operators in between.

`pull` searches from the norm's input backwards, `push` from its output forwards. Both return the edits to make or raise
CannotFold, so that nothing is changed unless the whole norm can be folded.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from bnmodel.deploy.affine import Affine, split
from bnmodel.deploy.layers import Layer, Layers
from bnmodel.deploy.nodes import Size, is_tensor, layer_name, named_arguments, operator_name, readers, same_shape, shape
from bnmodel.deploy.operators import moved

Edit = Callable[[], None]
SPLITS = ("split", "split_with_sizes", "chunk")


class CannotFold(Exception):
    """A batch norm cannot be folded; the message is the reason."""


def pull(layers: Layers, node: fx.Node, total: Affine) -> list[Edit]:
    """Edits after which `node` computes total(node)."""
    _require(len(readers(node)) == 1, f"the output of {_named(node)} is used elsewhere")
    layer = layers.at(node)
    if layer is not None:
        _require(layer.accepts_after(total), f"it does not act on the output channels of {_named(node)}")
        return [lambda: layer.apply_after(total)]
    reason = f"it follows {_named(node)}"
    if node.target is operator.getitem:
        return _pull_from_part(layers, node, total, reason)
    name = operator_name(node)
    _require(bool(name and node.args) and is_tensor(node), reason)
    if name in ("cat", "concat"):
        parts, axis, sizes = _concatenated(node, reason)
        _require(len(set(parts)) == len(parts), reason)
        scales, shifts = split(total.scale, axis, sizes), split(total.shift, axis, sizes)
        return [
            edit
            for part, scale, shift in zip(parts, scales, shifts, strict=True)
            for edit in pull(layers, part, Affine(scale, shift))
        ]
    if name == "add" and not node.kwargs:
        parts = [one for one in node.args if isinstance(one, fx.Node)]
        _require(len(set(parts)) == 2 and all(same_shape(one, node) for one in parts), reason)
        only_scale = Affine(total.scale, torch.zeros_like(total.scale))
        return pull(layers, parts[0], total) + pull(layers, parts[1], only_scale)
    before = moved(node, total, backwards=True)
    if before is None:
        raise CannotFold(reason)
    return pull(layers, node.args[0], before)  # type: ignore[arg-type]


def _pull_from_part(layers: Layers, node: fx.Node, total: Affine, reason: str) -> list[Edit]:
    """Pull from one part of a split, whose other parts are scaled by 1 and shifted by 0."""
    split_node, index = node.args
    assert isinstance(split_node, fx.Node)
    _require(operator_name(split_node) in SPLITS, reason)
    _require(all(part is node or part.args[1] != index for part in split_node.users), reason)
    axis, sizes = _parts(split_node, total, reason)
    others = [one != index for one in range(len(sizes))]
    return pull(layers, split_node.all_input_nodes[0], _joined(total, axis, sizes, others))


def push(layers: Layers, node: fx.Node, total: Affine) -> list[Edit]:
    """Edits after which every user of total(node) reads `node` instead."""
    users = readers(node)
    _require(bool(users), "its output is not used")
    return [edit for user in users for edit in _push_into(layers, node, user, total)]


def _push_into(layers: Layers, node: fx.Node, user: fx.Node, total: Affine) -> list[Edit]:
    _require(user.op != "output", "its output is an output of the network")
    layer = layers.at(user)
    if layer is not None and layer.source is node:
        _require(layer.accepts_before(total), _refusal(layer))
        return [lambda: layer.apply_before(total)]
    reason = f"it is followed by {_named(user)}"
    name = operator_name(user)
    if name in SPLITS:
        return _push_into_parts(layers, user, total, reason)
    _require(bool(name) and is_tensor(user), reason)
    if name in ("cat", "concat"):
        return _push_into_whole(layers, node, user, total, reason)
    _require(user.all_input_nodes[:1] == [node] and user.args[0] is node, reason)
    after = moved(user, total, backwards=False)
    if after is None:
        raise CannotFold(reason)
    return push(layers, user, after)


def _push_into_whole(layers: Layers, node: fx.Node, user: fx.Node, total: Affine, reason: str) -> list[Edit]:
    """Push into a concatenation, whose other parts are scaled by 1 and shifted by 0."""
    parts, axis, sizes = _concatenated(user, reason)
    _require(parts.count(node) == 1, reason)
    return push(layers, user, _joined(total, axis, sizes, [one is not node for one in parts]))


def _joined(total: Affine, axis: int, sizes: Sequence[int], others: Sequence[Any]) -> Affine:
    """`total` of one part along an axis, and 1 · x + 0 of the others."""

    def joined(part: Tensor, neutral: float) -> Tensor:
        pieces = []
        for size, other in zip(sizes, others, strict=True):
            piece = [*part.shape[:axis], size, *part.shape[axis + 1 :]]
            pieces.append(part.new_full(piece, neutral) if other else part.expand(piece))
        return torch.cat(pieces, axis)

    return Affine(joined(total.scale, 1.0), joined(total.shift, 0.0))


def _parts(node: fx.Node, total: Affine, reason: str) -> tuple[int, list[Size]]:
    """The axis of a split, and the sizes of its parts."""
    axis = named_arguments(node)["dim"] % total.scale.dim()
    sizes = [part.shape[axis] for part in node.meta["val"]]
    _require(all(isinstance(size, int) for size in sizes), reason)
    return axis, sizes


def _push_into_parts(layers: Layers, user: fx.Node, total: Affine, reason: str) -> list[Edit]:
    axis, sizes = _parts(user, total, reason)
    scales, shifts = split(total.scale, axis, sizes), split(total.shift, axis, sizes)
    edits: list[Edit] = []
    for part in user.users:
        _require(part.target is operator.getitem, reason)
        index: Any = part.args[1]
        edits += push(layers, part, Affine(scales[index], shifts[index]))
    return edits


def _concatenated(node: fx.Node, reason: str) -> tuple[list[fx.Node], int, list[Size]]:
    """The parts of a concatenation, its axis, and the sizes of the parts along it."""
    given = named_arguments(node)
    parts, axis = list(given["tensors"]), given["dim"] % len(shape(node))
    sizes = [shape(part)[axis] for part in parts]
    _require(all(isinstance(size, int) for size in sizes), reason)
    return parts, axis, sizes


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise CannotFold(reason)


def _refusal(layer: Layer) -> str:
    if layer.padded:
        return f"{_named(layer.node)} pads with zeros"
    return f"it does not act on the input channels of {_named(layer.node)}"


def _named(node: fx.Node) -> str:
    """The operator and the layer of a node, for messages."""
    if node.op != "call_function":
        return f"the input {node.name}" if node.op == "placeholder" else node.op
    name = operator_name(node) or getattr(node.target, "__name__", str(node.target))
    return name if layer_name(node) == node.name else f"{name} ({layer_name(node)})"
