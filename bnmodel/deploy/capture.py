"""From a network to one graph of ATen operators, by `torch.export`, with the dynamic axes that were asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from bnmodel.deploy.axes import Axes, dynamic_axes, for_tracing, kept_axes, ports
from bnmodel.deploy.errors import ExportError, first_line
from bnmodel.deploy.flat_graph import flat_graph, functional
from bnmodel.deploy.nodes import placeholders, results_of
from bnmodel.deploy.preflight import refuse_graph
from bnmodel.deploy.signature import FlatNetwork, Port
from bnmodel.deploy.tracing import export, quiet


@dataclass(frozen=True)
class Captured:
    """A network as one graph.

    Attributes:
        graph: takes and returns flat tensors; placeholders have the inputs' names.
        inputs, outputs: named tensors with their dynamic axes.
        notes: what could not be kept as asked, for the certificate.
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
        """Whether the first axis of every input and output is one dynamic batch axis."""
        first = {port.shape[0] if port.shape else None for port in (*self.inputs, *self.outputs)}
        return len(first) == 1 and isinstance(next(iter(first)), str)


def capture(
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Any = None,
) -> Captured:
    """Trace `network` on `tensors` into one graph.

    Raises:
        ExportError: the graph depends on values of the input, an operator cannot be traced, an axis that was asked to
            vary is fixed by the network, or there are batch statistics or random numbers.
    """
    axes, asked = dynamic_axes(dynamic, inputs, tensors)
    notes: list[str] = []
    try:
        program = export(network, for_tracing(tensors, axes), axes)
    except Exception as error:
        if asked and any(axes):
            raise _refusal(network, error) from error
        try:
            axes = tuple({} for _ in tensors)
            program = export(network, tensors, axes)
        except Exception:
            raise _refusal(network, error) from error
        notes.append(f"the batch size is fixed at {len(tensors[0])}: {first_line(error)}")
    guard = _guard(program) if any(axes) else None
    module = flat_graph(functional(program), inputs)
    graph = module.graph
    refuse_graph(graph)
    axes = kept_axes(graph, axes, asked, inputs, notes)
    found = ports(inputs, placeholders(graph), graph, axes)
    results = ports(outputs, results_of(graph), graph, axes)
    return Captured(module, found, results, axes, notes, guard)


def _guard(program: torch.export.ExportedProgram) -> Callable[..., object] | None:
    if not getattr(program, "_guards_code", None):
        return None
    with quiet():
        found: Callable[..., object] | None = getattr(program.module(check_guards=True), "_guards_fn", None)
    return found


def _refusal(network: FlatNetwork, error: Exception) -> ExportError:
    kind = type(network.model).__name__
    text = str(error)
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__ or "unbacked" in text:
        reason = "its control flow or its shapes depend on values of the input"
        remedy = "replace the branch by torch.where, or the loop by torch operators"
    else:
        reason = f"torch.export cannot trace it ({type(error).__name__})"
        remedy = "the network has to be traceable by torch.export"
    return ExportError(f"{kind}: {reason}: {first_line(error)}{_where(error)}; {remedy}")


def _where(error: Exception) -> str:
    """The line of the network's source that the tracer stopped at, without the path."""
    trace = error.__traceback__
    found = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "forward" and "torch" not in code.co_filename.split("site-packages")[-1]:
            found = f" (in {code.co_qualname if hasattr(code, 'co_qualname') else code.co_name})"
        trace = trace.tb_next
    return found
