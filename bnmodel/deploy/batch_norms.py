"""Find the batch norms of a graph by what it computes, not by the classes of modules.

With running statistics a batch norm is y = s·x + t with s = γ/√(σ² + ε) and t = β − s·μ, per channel, whether it is one
operator or written out by hand. Consecutive operators that scale and shift by constants form a chain. A chain contains
a batch norm if one of its constants comes from running statistics or from an inverse square root.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bnmodel.deploy.affine import Affine
from bnmodel.deploy.constants import Constants
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.nodes import (
    branch_of,
    dtype_of,
    is_float,
    layer_name,
    named_arguments,
    operator_name,
    same_shape,
    shape,
    type_name,
)

STATISTICS = re.compile(r"running_(mean|var)$|(^|\.)(moving|pop\w*)_(mean|var\w*)$")
INVERSE_ROOTS = {"rsqrt", "sqrt"}
ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "addcmul", "neg")


@dataclass(frozen=True)
class Step:
    """One operator that scales and shifts its argument number `index` by constants."""

    node: fx.Node
    index: int
    affine: Affine

    @property
    def source(self) -> fx.Node:
        source = self.node.args[self.index]
        assert isinstance(source, fx.Node)
        return source


@dataclass(frozen=True)
class Chain:
    """Consecutive steps, which together are one or more batch norms.

    Attributes:
        norms: names of the layers that normalise.
        reason: why the chain cannot be folded into any neighbour; None if it may be.
    """

    steps: list[Step]
    norms: list[str]
    reason: str | None = None

    @property
    def source(self) -> fx.Node:
        return self.steps[0].source

    @property
    def last(self) -> fx.Node:
        return self.steps[-1].node

    @property
    def total(self) -> Affine:
        return functools.reduce(Affine.then, [step.affine for step in self.steps])


def chains(graph: fx.Graph, constants: Constants) -> list[Chain]:
    """Every chain that contains a batch norm."""
    found: list[Chain] = []
    seen: set[fx.Node] = set()
    for node in graph.nodes:
        step = None if node in seen or constants.get(node) is not None else step_of(node, constants)
        steps = []
        while step is not None:
            steps.append(step)
            step = _following(step, constants)
        seen.update(step.node for step in steps)
        found += [chain for part in _of_one_type(steps) if (chain := part_of(part, constants)) is not None]
    return found


def part_of(steps: list[Step], constants: Constants) -> Chain | None:
    """Consecutive steps as a chain; None if they contain no batch norm."""
    norms = _norms(steps, constants)
    if not norms:
        return None
    source, last = steps[0].source, steps[-1].node
    mixed = f"it takes {type_name(source)} and gives {type_name(last)}"
    return Chain(steps, norms, mixed if dtype_of(last) != dtype_of(source) else None)


def _following(step: Step, constants: Constants) -> Step | None:
    """The step that is the only user of `step`."""
    if len(step.node.users) != 1:
        return None
    following = step_of(next(iter(step.node.users)), constants)
    return following if following is not None and following.source is step.node else None


def _of_one_type(steps: list[Step]) -> Iterator[list[Step]]:
    """Longest parts that end in the type that they begin with, so that each can be folded; otherwise single steps."""
    while steps:
        begins = dtype_of(steps[0].source)
        count = max((end for end, step in enumerate(steps, 1) if dtype_of(step.node) == begins), default=1)
        yield steps[:count]
        steps = steps[count:]


def _norms(steps: list[Step], constants: Constants) -> list[str]:
    """Names of the layers that normalise: with running statistics, or by an inverse square root."""
    names = []
    for node in [step.node for step in steps]:
        inputs = node.all_input_nodes
        by_root = any(constants.operators(one) & INVERSE_ROOTS for one in inputs)
        by_name = any(STATISTICS.search(name) for one in inputs for name in constants.sources(one))
        if operator_name(node) == "batch_norm" or by_root or by_name:
            names.append(layer_name(node))
    return list(dict.fromkeys(names))


def varying_norms(graph: fx.Graph, constants: Constants) -> Iterator[tuple[str, str]]:
    """Batch norms that are not a scale and shift by constants, with the reason."""
    for node in graph.nodes:
        branch = branch_of(node)
        for inner in branch.nodes if branch is not None else ():
            if "batch_norm" in str(inner.target):
                yield layer_name(inner), "it is in a branch that depends on the input"
        if operator_name(node) == "batch_norm" and constants.get(node) is None and step_of(node, constants) is None:
            yield layer_name(node), "its weights or statistics depend on the input"


def step_of(node: fx.Node, constants: Constants) -> Step | None:
    """A node as a step; None if it does not scale and shift its input by constants."""
    name = operator_name(node)
    if not name or not is_float(node):
        return None
    if name == "batch_norm":
        return _batch_norm(node, constants)
    if name in ("to", "_to_copy") and isinstance(node.args[0], fx.Node) and is_float(node.args[0]):
        one = torch.ones([1] * len(shape(node)), dtype=torch.float64)
        return Step(node, 0, Affine(one, torch.zeros_like(one)))
    return _arithmetic(node, name, constants) if name in ARITHMETIC else None


def _batch_norm(node: fx.Node, constants: Constants) -> Step | None:
    given = named_arguments(node)
    values: list[Tensor | None] = []
    for name, default in (("weight", 1.0), ("bias", 0.0), ("running_mean", None), ("running_var", None)):
        absent = given[name] is None and default is not None
        values.append(torch.tensor(default, dtype=torch.float64) if absent else constants.get(given[name]))
    gamma, beta, mean, var = values
    if gamma is None or beta is None or mean is None or var is None:
        return None
    if bool((var + given["eps"] <= 0).any()):
        least = f"{float(var.min()):.3g}"
        raise ExportError(f"{layer_name(node)}: variance of {least}, expected variance + eps above 0")
    scale = (var + given["eps"]).rsqrt() * gamma
    per_channel = [1, -1] + [1] * (len(shape(node)) - 2)
    return Step(node, 0, Affine(scale.view(per_channel), (beta - scale * mean).view(per_channel)))


def _arithmetic(node: fx.Node, name: str, constants: Constants) -> Step | None:
    operands = [_operand(value, constants) for value in node.args]
    variable = [index for index, value in enumerate(operands) if value is None]
    factor: Any = node.kwargs.get("alpha", node.kwargs.get("value", 1))
    if len(variable) != 1 or set(node.kwargs) - {"alpha", "value"} or not isinstance(factor, (int, float)):
        return None
    index = variable[0]
    source = node.args[index]
    if not isinstance(source, fx.Node) or not is_float(source) or not same_shape(source, node):
        return None
    parts = _scale_and_shift(name, index, operands, float(factor))
    if parts is None:
        return None
    rank = len(shape(node))
    scale, shift = (torch.as_tensor(part, dtype=torch.float64) for part in parts)
    return Step(node, index, Affine(scale[(None,) * (rank - scale.dim())], shift[(None,) * (rank - shift.dim())]))


def _scale_and_shift(name: str, index: int, operands: Sequence[Any], factor: float) -> tuple[Any, Any] | None:
    """Scale and shift of an arithmetic operator in its operand at `index`; `factor`: alpha, or value of addcmul."""
    first, second = operands[0], operands[-1]
    match name, index:
        case "neg", _:
            return -1.0, 0.0
        case "add", 0:
            return 1.0, second * factor
        case "add", 1:
            return factor, first
        case "sub", 0:
            return 1.0, -second * factor
        case "sub", 1:
            return -factor, first
        case "rsub", 0:
            return -factor, second
        case "rsub", 1:
            return 1.0, -first * factor
        case "mul", _:
            return (second if index == 0 else first), 0.0
        case "div", 0:
            return second.reciprocal(), 0.0
        case "addcmul", 1 | 2:
            return operands[3 - index] * factor, first
    return None


def _operand(value: Any, constants: Constants) -> Tensor | None:
    """The value of a constant operand; None if it depends on the input."""
    if isinstance(value, (bool, int, float)):
        return torch.tensor(float(value), dtype=torch.float64)
    found = constants.get(value)
    return None if found is None or found.is_complex() else found.double()
