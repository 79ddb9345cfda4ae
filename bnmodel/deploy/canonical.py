"""Replace operators that formats or runtimes lack by common ones; drop those without effect in eval mode."""

import itertools
import math
import operator
import re
from typing import Any

import torch
from torch import fx

from bnmodel.deploy.nodes import dtype_of, is_tensor, named_arguments, operator_name, same_size, shape
from bnmodel.deploy.sizes import plain_sizes

aten = torch.ops.aten
SHORT = 8  # elements of vectors whose differences are stored for all pairs


def canonicalize(graph: fx.Graph) -> None:
    """Edit the graph in place; pools also get an explicit stride."""
    plain_sizes(graph)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is operator.getitem and node.args[1] == 0:
            plain = _plain_batch_norm(graph, node) or _plain_maximum(graph, node) or _only_part(node)
            if plain is not None:
                node.replace_all_uses_with(plain)
                graph.erase_node(node)
            continue
        short = operator_name(node)
        if short in ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"):
            kernel, *rest = node.args[1:]
            if not rest or not rest[0]:
                node.args = (node.args[0], kernel, kernel, *rest[1:])
            if short.startswith("avg"):
                _without_divisor(graph, node)
        elif short == "instance_norm" and not named_arguments(node)["use_input_stats"]:  # with running statistics
            node.target, node.args = aten.batch_norm.default, (*node.args[:5], False, *node.args[6:8], False)
        elif short == "batch_norm" and named_arguments(node)["training"] and shape(node.args[0])[0] == 1:
            _normalised_by_sample(graph, node)
        elif short == "cat" and len(node.args[0]) == 1:
            node.replace_all_uses_with(node.args[0][0])
            graph.erase_node(node)
        elif short == "rrelu" and not (given := named_arguments(node))["training"]:
            slope = (given["lower"] + given["upper"]) / 2
            node.target, node.args, node.kwargs = aten.leaky_relu.default, (node.args[0], slope), {}
        elif short in ("amax", "amin") and node.args[1:] in ((), ([],)) and not node.kwargs:  # over all axes
            node.target, node.args = (aten.max if short == "amax" else aten.min).default, node.args[:1]
        elif short.startswith("adaptive_avg_pool"):
            _plain_mean(graph, node)
        elif short in ("add", "div", "mul"):
            _without_flags(graph, node)
        elif short == "cdist":
            _plain_distances(graph, node)
        elif short == "embedding_bag":
            _wide_bags(graph, node)
        elif short == "repeat":
            _plain_repeat(graph, node)
        elif short in ("chunk", "split", "split_with_sizes"):
            _plain_split(graph, node)
        elif _does_nothing(node, short):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _plain_batch_norm(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The first result of a decomposed batch norm, as one batch_norm operator."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if str(source.target) != "aten._native_batch_norm_legit_no_training.default":
        return None
    x, weight, bias, mean, var, momentum, eps = source.args
    with graph.inserting_before(node):
        args = (x, weight, bias, mean, var, False, momentum, eps, False)
        plain = graph.call_function(aten.batch_norm.default, args)
    plain.meta = {**source.meta, "val": node.meta["val"]}
    return plain


def _only_part(node: fx.Node) -> fx.Node | None:
    """The input of a split into one part."""
    parts = node.args[0]
    assert isinstance(parts, fx.Node)
    split = operator_name(parts) in ("chunk", "split", "split_with_sizes", "tensor_split")
    return parts.all_input_nodes[0] if split and len(parts.meta["val"]) == 1 else None


def _normalised_by_sample(graph: fx.Graph, node: fx.Node) -> None:
    """Write out a batch norm of (1, N·C, …) with batch statistics, as adaptive instance norm uses it."""
    given = named_arguments(node)
    x = given["input"]
    axes = [axis for axis in range(len(shape(x))) if axis != 1]

    def per_channel(value: fx.Node) -> fx.Node:
        for _ in axes[1:]:
            value = _call(graph, aten.unsqueeze.default, value, -1)
        return value

    with graph.inserting_before(node):
        centred = _call(graph, aten.sub.Tensor, x, _call(graph, aten.mean.dim, x, axes, True))
        var = _call(graph, aten.mean.dim, _call(graph, aten.mul.Tensor, centred, centred), axes, True)
        inverse = _call(graph, aten.rsqrt.default, _call(graph, aten.add.Tensor, var, given["eps"]))
        result = _call(graph, aten.mul.Tensor, centred, inverse)
        if given["weight"] is not None:
            result = _call(graph, aten.mul.Tensor, result, per_channel(given["weight"]))
        if given["bias"] is not None:
            result = _call(graph, aten.add.Tensor, result, per_channel(given["bias"]))
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _plain_maximum(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The values of an adaptive max pool, as maxima of slices.

    Window i of n along an axis of length L begins at ⌊i·L / n⌋ and ends at ⌈(i + 1)·L / n⌉.
    """
    pool = node.args[0]
    assert isinstance(pool, fx.Node)
    found = re.fullmatch(r"aten\.adaptive_max_pool([123])d\.default", str(pool.target))
    if found is None or any(user is not node and user.users for user in pool.users):
        return None
    source, wanted = pool.args
    assert isinstance(source, fx.Node)
    rank, spatial = len(shape(source)), int(found[1])
    counts: list[Any] = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted] * spatial
    axes = range(rank - spatial, rank)
    if any(count != 1 and not isinstance(shape(source)[axis], int) for axis, count in zip(axes, counts, strict=True)):
        return None
    with graph.inserting_before(node):
        for axis, count in zip(axes, counts, strict=True):
            length, parts = shape(source)[axis], []
            if count == length:
                continue
            for i in range(count):
                start, end = i * length // count, -(-(i + 1) * length // count) if count > 1 else None
                part = source if count == 1 else _call(graph, aten.slice.Tensor, source, axis, start, end)
                parts.append(_call(graph, aten.amax.default, part, [axis], True))
            source = parts[0] if count == 1 else _call(graph, aten.cat.default, parts, axis)
    return source


def _plain_mean(graph: fx.Graph, node: fx.Node) -> None:
    """Replace an adaptive average pool of a dynamic size that keeps or averages whole axes by a mean."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    outside, inside = shape(node), shape(source)
    axes = [axis for axis, size in enumerate(outside) if not same_size(size, inside[axis])]
    if all(isinstance(size, int) for size in outside[2:]) or any(outside[axis] != 1 for axis in axes) or not axes:
        return
    with graph.inserting_before(node):
        mean = _call(graph, aten.mean.dim, source, axes, True)
    mean.meta = dict(node.meta)
    node.replace_all_uses_with(mean)
    graph.erase_node(node)


def _without_divisor(graph: fx.Graph, node: fx.Node) -> None:
    """Replace an average pool's `divisor_override`, which ONNX lacks, by a multiplication."""
    given = named_arguments(node)
    divisor, kernel = given.get("divisor_override"), given["kernel_size"]
    if divisor is None or given["ceil_mode"]:
        return
    count = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** int(operator_name(node)[-2])  # avg_pool2d: 2 axes
    node.args, node.kwargs = (node.args[0], kernel, given["stride"], given["padding"], False, True), {}
    with graph.inserting_after(node):
        scaled = graph.call_function(aten.mul.Tensor, (node, count / divisor))
    scaled.meta = dict(node.meta)
    node.replace_all_uses_with(scaled, lambda user: user is not scaled)


def _without_flags(graph: fx.Graph, node: fx.Node) -> None:
    """Cast boolean operands without axes to the result's type: TorchScript cannot compute with such a constant."""
    flags = [one for one in node.all_input_nodes if is_tensor(one) and dtype_of(one) == torch.bool and not shape(one)]
    if not flags or not is_tensor(node):
        return
    if dtype_of(node) == torch.bool:
        node.target = (aten.logical_and if operator_name(node) == "mul" else aten.logical_or).default
        return
    for flag in flags:
        with graph.inserting_before(node):
            node.replace_input_with(flag, _call(graph, aten.to.dtype, flag, dtype_of(node)))


def _plain_distances(graph: fx.Graph, node: fx.Node) -> None:
    """Write out the Euclidean distances of short vectors, such as points in space, which ONNX lacks."""
    given = named_arguments(node)
    a, b, size = given["x1"], given["x2"], shape(given["x1"])[-1]
    if given["p"] != 2 or not isinstance(size, int) or size > SHORT:
        return
    with graph.inserting_before(node):
        left, right = _call(graph, aten.unsqueeze.default, a, -2), _call(graph, aten.unsqueeze.default, b, -3)
        between = _call(graph, aten.sub.Tensor, left, right)
        squares = _call(graph, aten.sum.dim_IntList, _call(graph, aten.mul.Tensor, between, between), [-1])
        distances = _call(graph, aten.sqrt.default, squares)
    node.replace_all_uses_with(distances)
    graph.erase_node(node)


def _wide_bags(graph: fx.Graph, node: fx.Node) -> None:
    """Cast the int32 indices and offsets of an embedding bag, which ONNX lacks."""
    with graph.inserting_before(node):
        for index in (1, 2):
            given = node.args[index]
            if isinstance(given, fx.Node) and dtype_of(given) == torch.int32:
                node.update_arg(index, _call(graph, aten.to.dtype, given, torch.int64))


def _plain_repeat(graph: fx.Graph, node: fx.Node) -> None:
    """Replace a repetition along one axis by a concatenation, which more runtimes support."""
    source, counts = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(counts, (list, tuple))
    axes = [axis for axis, count in enumerate(counts) if count != 1]
    if len(counts) != len(shape(source)) or len(axes) != 1 or counts[axes[0]] not in range(2, 9):
        return
    node.target, node.args = aten.cat.default, ([source] * int(counts[axes[0]]), axes[0])  # type: ignore[arg-type]


def _plain_split(graph: fx.Graph, node: fx.Node) -> None:
    """Replace a split along a dynamic axis, which the ONNX exporter cannot convert, by slices."""
    given = named_arguments(node)
    source, axis = given["input" if "input" in given else "self"], given.get("dim", 0)
    parts = node.meta["val"]
    if all(isinstance(part.shape[axis], int) for part in parts):
        return
    with graph.inserting_before(node):
        if operator_name(node) == "split_with_sizes":
            sizes = list(given["split_sizes"])
        else:
            size = given.get("split_size")
            if size is None:  # chunk: as many parts of ⌈length / chunks⌉
                length = _call(graph, aten.sym_size.int, source, axis)
                up = _call(graph, operator.add, length, given["chunks"] - 1)
                size = _call(graph, operator.floordiv, up, given["chunks"])
            sizes = [size] * len(parts)
        ends: list[Any] = [0]
        for size in sizes:
            ends.append(_call(graph, operator.add, ends[-1], size))
        slices = [_call(graph, aten.slice.Tensor, source, axis, a, b) for a, b in itertools.pairwise(ends)]
    for user in node.users:
        user.replace_all_uses_with(slices[user.args[1]])  # type: ignore[index]


def _call(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    node = graph.call_function(target, args)
    node.meta = {"val": target(*fx.map_arg(args, lambda one: one.meta["val"]))}
    return node


def _does_nothing(node: fx.Node, short: str) -> bool:
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    if short in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"):
        return len(node.args) == 3 and bool(node.args[2] is False or node.args[1] == 0)
    if short in ("alias", "lift_fresh_copy", "lift_fresh", "detach", "detach_"):
        return True
    if short in ("to", "type_as", "_to_copy"):
        same_type = is_tensor(node) and is_tensor(source) and dtype_of(node) == dtype_of(source)
        return same_type and not node.kwargs.get("memory_format")
    return False
