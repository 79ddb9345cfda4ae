"""Constant folding in float64: the values of a graph that do not depend on its inputs."""

import itertools
import operator
from typing import Any

import torch
from torch import Tensor, fx

from bnmodel.deploy.nodes import dtype_of, is_tensor, operator_name, shape
from bnmodel.deploy.reference import float64, widened

LARGE = 1 << 16  # elements; a larger constant is stored only if it is at most 8 × as large as a weight it is made from


class Constants:
    """Node → its value in float64 (integers as they are); None if it depends on an input."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self._values: dict[fx.Node, Any] = {}
        self._sources: dict[fx.Node, frozenset[str]] = {}
        self._operators: dict[fx.Node, frozenset[str]] = {}
        for node in graph.graph.nodes:
            self._add(graph, node)

    def _add(self, graph: fx.GraphModule, node: fx.Node) -> None:
        if node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(graph)
            if isinstance(value, Tensor):
                self._values[node] = widened(value.detach())
                self._sources[node] = frozenset([str(node.target)])
                self._operators[node] = frozenset()
        elif node.op == "call_function" and self._computable(node):
            try:
                self._values[node] = _evaluate(node, self._values)
            except Exception:
                return
            inputs = node.all_input_nodes
            self._sources[node] = frozenset().union(*(self._sources[one] for one in inputs))
            own = operator_name(node)
            if own == "pow" and node.args[1] in (0.5, -0.5):
                own = "sqrt"
            self._operators[node] = frozenset([own]).union(*(self._operators[one] for one in inputs))

    def get(self, node: Any) -> Tensor | None:
        value = self._values.get(node)
        return value if isinstance(value, Tensor) else None

    def sources(self, node: fx.Node) -> frozenset[str]:
        """Names of the parameters and buffers that a constant is made from."""
        return self._sources.get(node, frozenset())

    def operators(self, node: fx.Node) -> frozenset[str]:
        """The operators that a constant is computed with."""
        return self._operators.get(node, frozenset())

    def _computable(self, node: fx.Node) -> bool:
        inputs, target = node.all_input_nodes, node.target
        if isinstance(target, torch._ops.OpOverload):
            if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
                return False
        elif target is not operator.getitem:
            return False
        if is_tensor(node) and not all(isinstance(size, int) for size in shape(node)):
            return False
        if not inputs and not (is_tensor(node) and node.meta["val"].numel() <= LARGE):
            return False
        return all(one in self._values for one in inputs)


def _evaluate(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    with float64():
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    return result


def store_constants(graph: fx.GraphModule) -> None:
    """Replace nodes computed from weights alone by buffers with their values, rounded once to the node's type."""
    constants = Constants(graph)
    names = (f"constant_{number}" for number in itertools.count())
    for node in list(graph.graph.nodes):
        value = constants.get(node)
        if node.op != "call_function" or value is None or not constants.sources(node):
            continue
        if all(constants.get(user) is not None for user in node.users):
            continue
        if value.numel() > LARGE and value.numel() > 8 * _largest(graph, constants.sources(node)):
            continue
        _replace_by_buffer(graph, node, next(names), value.to(dtype_of(node)))
    graph.graph.eliminate_dead_code()


def _replace_by_buffer(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> None:
    graph.register_buffer(name, value.detach().contiguous().clone())
    with graph.graph.inserting_before(node):
        attribute = graph.graph.get_attr(name)
    attribute.meta = {"val": node.meta["val"]}
    node.replace_all_uses_with(attribute)


def _largest(graph: fx.GraphModule, names: frozenset[str]) -> int:
    return max(int(operator.attrgetter(name)(graph).numel()) for name in names)
