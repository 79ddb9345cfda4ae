"""Maxima of shifted slices, such as max(x[:, :-1], x[:, 1:]), become max pooling in ONNX files.

ONNX Runtime pools several times as fast as it slices; PyTorch pools a few channels ten times as slowly.
Replicated edges do not change a maximum, so padding with them becomes padding of the pooling.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import fx

from bnmodel.deploy.nodes import dtype_of, is_tensor, named_arguments, same_shape, shape
from bnmodel.deploy.reshapes import merge_reshapes, reshaped

aten = torch.ops.aten
LEAST = 3  # width of a window that is worth pooling


class Window(NamedTuple):
    """Element i of a node is the maximum of its source's elements i + start … i + stop - 1 along an axis."""

    source: fx.Node  # (channels, height, width), or several of these
    axis: int
    start: int
    stop: int


def with_pooling(original: fx.GraphModule) -> fx.GraphModule | None:
    """A copy of the graph with max pooling instead of running maxima; None if there are none."""
    pooled = fx.GraphModule(original, deepcopy(original.graph))  # shares the weights
    graph = pooled.graph
    pools: dict[fx.Node, Any] = {}  # nodes by the maximum that each replaces
    for node, window in _windows(graph).items():
        if _is_whole(node, window):
            pools[node] = _pool(pools.get(window.source, window.source), node, window)
    if not pools:
        return None
    graph.eliminate_dead_code()
    created = set(pools.values())
    for pool in pools.values():
        while pool.users and _take_over(pool, created):
            graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node in created and len(shape(node)) == 3 and all(isinstance(size, int) for size in shape(node)):
            _in_four_dimensions(node)
    merge_reshapes(graph)
    graph.eliminate_dead_code()
    pooled.recompile()
    return pooled


def _take_over(pool: fx.Node, pools: set[fx.Node]) -> bool:
    """Extend a pool by the pool or the padding that its input comes from, if there is one."""
    arguments: tuple[Any, ...] = pool.args
    source, kernel, strides, padding = arguments
    if source in pools and len(source.users) == 1:
        inner, inner_kernel, _, inner_padding = source.args
        kernel = [a + b - 1 for a, b in zip(inner_kernel, kernel, strict=True)]
        padding = [a + b for a, b in zip(inner_padding, padding, strict=True)]
    elif source.target is aten.pad.default and source.args[2:3] == ("replicate",) and padding == [0, 0]:
        inner, (left, right, top, bottom) = source.args[:2]
        padding = [top, left]
        if (left, top) != (right, bottom) or any(2 * a >= b for a, b in zip(padding, kernel, strict=True)):
            return False
    else:
        return False
    pool.args = (inner, kernel, strides, padding)
    return True


def _in_four_dimensions(pool: fx.Node) -> None:
    """Pool (1, channels, height, width), as ONNX does, so that changes of shape can be merged."""
    source, *rest = pool.args
    assert isinstance(source, fx.Node)
    graph, sizes = pool.graph, list(shape(pool))
    with graph.inserting_before(pool):
        pool.args = (reshaped(source, [1, *shape(source)]), *rest)
    pool.meta = {"val": pool.meta["val"][None]}
    with graph.inserting_after(pool):
        result = reshaped(pool, sizes)
    pool.replace_all_uses_with(result, lambda user: user is not result)


def _windows(graph: fx.Graph) -> dict[fx.Node, Window]:
    """Slices of images along height or width, and maxima of slices of the same values."""
    windows: dict[fx.Node, Window] = {}
    for node in graph.nodes:
        window = None
        if node.target is aten.slice.Tensor and is_tensor(node) and dtype_of(node) is torch.float32:
            window = _of_slice(node, windows)
        elif node.target is aten.maximum.default and same_shape(*node.args):  # nothing is broadcast
            window = _union(*(windows.get(value) for value in node.args))
        if window is not None:
            windows[node] = window
    return windows


def _of_slice(node: fx.Node, windows: dict[fx.Node, Window]) -> Window | None:
    given = named_arguments(node)
    source, axis, start = given["self"], given["dim"], given["start"] or 0
    sizes = shape(source)
    axis = axis % len(sizes)
    if len(sizes) not in (3, 4) or axis < len(sizes) - 2 or given["step"] != 1:
        return None
    if not isinstance(sizes[axis], int) or not isinstance(start, int):
        return None
    start = max(start + sizes[axis], 0) if start < 0 else start
    inner = windows.get(source)
    if inner is not None and inner.axis == axis:
        return inner._replace(start=inner.start + start, stop=inner.stop + start)
    return Window(source, axis, start, start + 1)


def _union(one: Window | None, other: Window | None) -> Window | None:
    if one is None or other is None or one[:2] != other[:2] or max(one.start, other.start) > min(one.stop, other.stop):
        return None
    return one._replace(start=min(one.start, other.start), stop=max(one.stop, other.stop))


def _is_whole(node: fx.Node, window: Window) -> bool:
    """Whether a maximum of slices is all that pooling of their source would give."""
    width = window.stop - window.start
    whole = shape(node)[window.axis] == shape(window.source)[window.axis] - width + 1
    return node.target is aten.maximum.default and width >= LEAST and window.start == 0 and whole


def _pool(source: fx.Node, node: fx.Node, window: Window) -> fx.Node:
    kernel = [1, 1]
    kernel[window.axis - len(shape(window.source))] = window.stop
    with node.graph.inserting_after(node):
        pool = node.graph.call_function(aten.max_pool2d.default, (source, kernel, [1, 1], [0, 0]))
    pool.meta = dict(node.meta)
    node.replace_all_uses_with(pool)
    return pool
