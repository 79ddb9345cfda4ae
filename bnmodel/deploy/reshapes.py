"""Merge successive changes of shape: in ONNX files, each is an operator."""

import torch
from torch import fx

from bnmodel.deploy.nodes import is_tensor, operator_name, shape

aten = torch.ops.aten
RESHAPES = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten")


def reshaped(node: fx.Node, sizes: list[int]) -> fx.Node:
    """Insert a change of a node's shape, at the graph's insertion point."""
    result = node.graph.call_function(aten.reshape.default, (node, sizes))
    result.meta = {"val": node.meta["val"].reshape(sizes)}
    return result


def merge_reshapes(graph: fx.Graph) -> None:
    """Let each change of shape read the value that a chain of them begins with, where all shapes are fixed."""
    for node in graph.nodes:
        if not _is_reshape(node):
            continue
        source = node.args[0]
        while _is_reshape(source):
            source = source.args[0]
        if shape(source) == shape(node):
            node.replace_all_uses_with(source)
        else:  # not a view, since a transposed value may have none
            node.target, node.args, node.kwargs = aten.reshape.default, (source, shape(node)), {}
    graph.eliminate_dead_code()


def _is_reshape(node: fx.Node) -> bool:
    """Whether a node changes nothing but a shape, from one fixed shape to another."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    source = node.args[0]
    if not is_tensor(node) or not is_tensor(source):
        return False
    sizes = [*shape(source), *shape(node)]
    if not all(isinstance(size, int) for size in sizes):
        return False
    name = operator_name(node)
    return name in RESHAPES or (name == "select" and shape(source)[node.args[1]] == 1)  # type: ignore[index]
