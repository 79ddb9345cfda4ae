"""Rewrite the arithmetic of sizes with operators that every format has."""

import math
import operator
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

ROUNDED = (math.floor, math.ceil, math.trunc, torch.sym_int)


def plain_sizes(graph: fx.Graph) -> None:
    """Write ⌊a / b⌋ and ⌈a / b⌉ as integer divisions, a · 0.5 as a / 2 within them, and √a as a^0.5."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if getattr(node.target, "__name__", "") == "_sym_sqrt":
            node.target, node.args = operator.pow, (*node.args, 0.5)
        elif node.target in ROUNDED and (found := _quotient(node.args[0])) is not None:
            _divide(graph, node, *found)


def _quotient(node: Any) -> tuple[fx.Node, int] | None:
    """a and b of a node a / b with a positive integer b, or a · (1 / b) where 1 / b is exact; None for others."""
    if not isinstance(node, fx.Node) or len(node.args) != 2:
        return None
    a, b = node.args
    if node.target is operator.mul and isinstance(b, float) and 0 < b <= 1 and math.frexp(b)[0] == 0.5:
        b = int(1 / b)
    elif node.target is not operator.truediv or not isinstance(b, int) or b <= 0:
        return None
    while isinstance(a, fx.Node) and a.target is torch.sym_float:
        (a,) = a.args
    return (a, b) if isinstance(a, fx.Node) and isinstance(a.meta.get("val"), torch.SymInt) else None


def _divide(graph: fx.Graph, node: fx.Node, a: fx.Node, b: int) -> None:
    if node.target not in (math.floor, math.ceil) and not statically_known_true(a.meta["val"] >= 0):
        return  # rounds towards zero
    with graph.inserting_before(node):
        if node.target is math.ceil:
            value = a.meta["val"] + (b - 1)
            a = graph.call_function(operator.add, (a, b - 1))
            a.meta = {"val": value}
        node.target, node.args = operator.floordiv, (a, b)
