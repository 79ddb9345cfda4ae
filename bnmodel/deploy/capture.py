"""Trace a network with `torch.export` into one graph of ATen operators with the dynamic axes asked for."""

import linecache
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensor
from torch.nn.utils.rnn import PackedSequence

from bnmodel.deploy.axes import Axes, batch_size, dynamic_axes, for_tracing, kept_axes, ports
from bnmodel.deploy.errors import ExportError, first_sentence
from bnmodel.deploy.flat_graph import flat_graph, functional
from bnmodel.deploy.nodes import placeholders, results_of, shape
from bnmodel.deploy.preflight import refuse_graph
from bnmodel.deploy.signature import FlatNetwork, Port
from bnmodel.deploy.tracing import export, quiet

DATA_DEPENDENT = "its control flow or its shapes depend on values of the input"
SEQUENCE = ("L", "T")  # names of an axis that is no batch
MUTATED = re.compile(r"Constant (\S+) is mutated in the forward method")
NOT_THE_USERS = {"torch", "sympy", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Captured:
    """A network as one graph.

    Attributes:
        graph: takes and returns flat tensors; its placeholders have the names of the inputs.
        inputs, outputs: named tensors with their dynamic axes.
        notes: restrictions, such as a fixed batch size, for the certificate.
        guard: raises AssertionError for input sizes at which the graph may differ from the network.
    """

    graph: fx.GraphModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    axes: tuple[Axes, ...]  # dynamic axes per input
    notes: list[str] = field(default_factory=list)
    guard: Callable[..., object] | None = None

    @property
    def batched(self) -> bool:
        """Whether the first axis of every input and output, and no other axis, is one dynamic batch axis.

        It is not if its name is L or T, for a sequence, or if another axis is named N, as batch axes are by default.
        """
        ports = [*self.inputs, *self.outputs]
        first = {port.shape[0] if port.shape else None for port in ports}
        batch = first.pop() if len(first) == 1 else None
        others = [str(size) for port in ports for size in port.shape[1:]]
        if not isinstance(batch, str) or batch in SEQUENCE:
            return False
        return not re.search(rf"\b({re.escape(batch)}|N)\b", " ".join(others))


def capture(
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Any = None,
    strict: bool = False,
) -> Captured:
    """Trace `network` on `tensors` into one graph, from its bytecode if `strict`.

    Raises:
        ExportError: the graph depends on values of the input, an operator cannot be traced, the network fixes an axis
            that was asked to be dynamic, or there are batch statistics or random numbers.
    """
    axes, asked = dynamic_axes(dynamic, inputs, tensors)
    return _captured(network, tensors, inputs, outputs, axes, asked, strict)


def _captured(
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: tuple[Axes, ...],
    asked: bool,
    strict: bool,
) -> Captured:
    notes: list[str] = []
    traced = for_tracing(tensors, axes)
    try:
        program = export(network, traced, axes, strict=True) if strict else _most_dynamic(network, traced, axes)
    except Exception as error:
        if strict or (asked and any(axes)):
            raise _refusal(network, error) from error
        try:
            axes, traced = tuple({} for _ in tensors), tuple(tensors)
            program = export(network, traced, axes)
        except Exception:
            raise _refusal(network, error) from error
        notes.append(f"the batch size is fixed at {batch_size(tensors)}: {_reason(error)}")
    guard = _guard(program) if any(axes) else None
    _refuse_lost_values(network, program)
    try:
        module = flat_graph(functional(program), inputs)
    except Exception as error:
        raise _refusal(network, error) from error
    graph = module.graph
    refuse_graph(graph)
    axes, fixed = kept_axes(graph, axes, asked, inputs, tensors)
    notes += fixed
    if [tensor.shape for tensor in for_tracing(tensors, axes)] != [tensor.shape for tensor in traced]:
        again = _captured(network, tensors, inputs, outputs, axes, asked, strict)  # a size of 1 was traced as 2
        return replace(again, notes=[*notes, *again.notes])
    found = ports(inputs, placeholders(graph), graph, axes)
    results = ports(outputs, results_of(graph), graph, axes)
    return Captured(module, found, results, axes, notes, guard)


def _most_dynamic(
    network: FlatNetwork, tensors: Sequence[Tensor], axes: Sequence[Axes]
) -> torch.export.ExportedProgram:
    """The network traced with as few fixed axes as possible.

    torch's strict mode takes fewer networks, but keeps sizes dynamic that pass through `len`, `int` or `math.sqrt`.
    """
    program, failure = None, None
    try:
        program = export(network, tensors, axes)
    except Exception as error:
        failure = error
    if (failure and _reason(failure) != DATA_DEPENDENT) or (program and _fixed(program, axes)):
        with suppress(Exception):
            strict = export(network, tensors, axes, strict=True)
            if program is None or _fixed(strict, axes) < _fixed(program, axes):
                program = strict
    if program is None:
        assert failure is not None
        raise failure
    return program


def _fixed(program: torch.export.ExportedProgram, axes: Sequence[Axes]) -> int:
    """Number of dynamic axes that became constants."""
    nodes = {node.name: node for node in placeholders(program.graph)}
    inputs = zip(program.graph_signature.user_inputs, axes, strict=True)
    return sum(isinstance(shape(nodes[str(name)])[axis], int) for name, chosen in inputs for axis in chosen)


def _refuse_lost_values(network: FlatNetwork, program: torch.export.ExportedProgram) -> None:
    """Refuse a program in which an intermediate value became a constant without values."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if any(isinstance(value, FakeTensor) or wrapped(value) for value in program.constants.values()):
        raise ExportError(
            f"{type(network.model).__name__}: torch.export loses values that forward differentiates with torch.func or "
            "copies; write the derivative with torch operators, or use torch.autograd.grad"
        )


def _guard(program: torch.export.ExportedProgram) -> Callable[..., object] | None:
    if not getattr(program, "_guards_code", None):
        return None
    with quiet():
        found: Callable[..., object] | None = getattr(program.module(check_guards=True), "_guards_fn", None)
    return found


def _refusal(network: FlatNetwork, error: Exception) -> ExportError:
    line = _users_line(error)
    reason, remedy = _reason(error), "torch.export.export(network, example, strict=False) shows the whole error"
    if line:
        remedy = f"use other torch operators there, or compute it outside of forward; {remedy}"
    local = (value for frame, _ in traceback.walk_tb(error.__traceback__) for value in frame.f_locals.values())
    if any(isinstance(value, PackedSequence) for value in local):
        reason = "packed sequences cannot be traced, since their sizes are values of the input"
        remedy = "run the recurrent layer on padded sequences, and gather the last step of each by its length"
    elif changed := MUTATED.search(reason):
        name = changed[1].removeprefix("model.")
        reason = f"forward changes {'a tensor' if name.startswith('lifted_tensor') else name}, which is not a buffer"
        remedy = "register it with register_buffer, and change it only in train mode"
    elif isinstance(error, ExportError):
        reason, _, remedy = str(error).partition("; ")
    elif reason == DATA_DEPENDENT:
        remedy = "replace the branch by torch.where, or the loop by torch operators"
    return ExportError(f"{type(network.model).__name__}: {reason}{line}; {remedy}")


def _reason(error: Exception) -> str:
    """Why tracing failed, without torch's pages of advice on guards."""
    text = f"{type(error).__name__} {error}"
    if any(word in text for word in ("data-dependent", "GuardOnDataDependent", "unbacked")):
        return DATA_DEPENDENT
    return f"torch.export cannot trace it ({first_sentence(error)})"


def _users_line(error: BaseException) -> str:
    """The innermost line outside torch that the tracer was in, as " at `x.sum() > 0` (model.py, line 12)"."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in NOT_THE_USERS and not module.startswith("bnmodel.deploy."):
            path = frame.f_code.co_filename
            return f" at `{linecache.getline(path, line).strip()}` ({Path(path).name}, line {line})"
    return ""
