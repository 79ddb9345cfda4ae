"""A traced program as one flat graph: named inputs, a tuple of results, no in-place operators."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator
from torch.fx.graph import CodeGen

from bnmodel.deploy.canonical import canonicalize
from bnmodel.deploy.nodes import operator_name, placeholders
from bnmodel.deploy.tracing import any_length, quiet

aten = torch.ops.aten
MAY_RETURN_THEIR_ARGUMENT = ("reshape", "contiguous", "to", "flatten", "dropout", "expand_as", "squeeze")


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without higher-order operators, nor in-place operators whose effect another operator reads."""
    if not any((_writes(node) and not _harmless(node)) or _is_transform(node.target) for node in program.graph.nodes):
        return program
    with quiet(), any_length():
        decomposed: torch.export.ExportedProgram = program.run_decompositions({})
    return decomposed


def flat_graph(program: torch.export.ExportedProgram, names: Sequence[str]) -> fx.GraphModule:
    """The program as a graph module with named placeholders, a flat tuple of results and no checks."""
    with quiet():
        source = program.module(check_guards=False)
    graph = fx.Graph()
    graph.set_codegen(CodeGen())
    values: dict[fx.Node, Any] = {}
    for node, name in zip(placeholders(source.graph), names, strict=True):
        values[node] = graph.placeholder(name)
        values[node].meta = dict(node.meta)
    attributes: dict[str, Any] = {}
    for node in source.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            graph.output(_distinct_results(graph, [values[result] for result in node.args[0]]))
        elif _is_dropped(node):
            if len(node.args) > 1:  # an input that is changed in place may be a result as well
                values[node] = values.get(node.args[1])
        else:
            values[node] = graph.node_copy(node, values.__getitem__)
            if node.op == "get_attr":
                attributes[str(node.target)] = operator.attrgetter(str(node.target))(source)
    for node in graph.nodes:
        if _writes(node) and (plain := _out_of_place(node.target)) is not None:
            node.target = plain
    canonicalize(graph)
    graph.eliminate_dead_code()
    graph.lint()
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return fx.GraphModule({name: value for name, value in attributes.items() if name in used}, graph)


def _is_dropped(node: fx.Node) -> bool:
    """Whether a node is an assertion, or stores a buffer's new value, which no exported file can keep."""
    if node.op != "call_function":
        return False
    target = node.args[0] if node.args else None
    written = isinstance(target, fx.Node) and target.op in ("get_attr", "placeholder")
    stored = str(node.target) == "aten.copy_.default" and written
    return stored or "assert" in str(node.target)


def _distinct_results(graph: fx.Graph, results: list[fx.Node]) -> tuple[fx.Node, ...]:
    """Results, with copies of inputs, constants and repeated ones: every output of a file is a separate tensor."""
    found: list[fx.Node] = []
    for result in results:
        if result.op != "call_function" or result in found:
            copied = graph.call_function(aten.clone.default, (result,))
            copied.meta = {"val": result.meta.get("val")}
            result = copied
        found.append(result)
    return tuple(found)


# ---- in-place operators


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def _is_transform(target: Any) -> bool:
    """Whether an operator is a higher-order one, such as autocast, vmap or a branch."""
    functorch = getattr(target, "__module__", None) or ""
    return isinstance(target, HigherOrderOperator) or functorch.startswith("torch._functorch")


def _harmless(node: fx.Node) -> bool:
    """Whether nothing reads the argument after an in-place operator, so that `relu_` can become `relu`."""
    first = node.args[0] if node.args else None
    if _out_of_place(node.target) is None or not isinstance(first, fx.Node) or first.op != "call_function":
        return False
    if any(user > node for user in first.users):
        return False
    return not any(_is_view(other) for other in (first, *first.users) if other is not node)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.op != "output"
    if operator_name(node) in MAY_RETURN_THEIR_ARGUMENT:
        return True
    return not schema.is_mutable and any(result.alias_info is not None for result in schema.returns)


def _out_of_place(target: Any) -> Any:
    """aten.relu_.default → aten.relu.default; None if there is no such operator."""
    namespace, name, overload = str(target).split(".")
    if namespace != "aten" or not name.endswith("_") or not hasattr(aten, name[:-1]):
        return None
    packet = getattr(aten, name[:-1])
    return getattr(packet, overload) if overload in packet.overloads() else None
