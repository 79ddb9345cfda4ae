"""From a network to one graph of ATen operators, by `torch.export`, with the dynamic axes that were asked for."""

import io
import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator
from torch.fx.graph import CodeGen
from torch.nn.modules import transformer

from bnmodel.deploy.affine import shape
from bnmodel.deploy.canonical import canonicalize
from bnmodel.deploy.errors import ExportError, first_line
from bnmodel.deploy.signature import FlatNetwork, Port

AXIS_NAMES = {0: "N", 1: "L", 2: "H", 3: "W", 4: "D"}
aten = torch.ops.aten
Axes = dict[int, str]  # axis → its name


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


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters report progress through logging and warn of their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def dynamic_axes(dynamic: Any, names: Sequence[str], tensors: Sequence[Tensor]) -> tuple[tuple[Axes, ...], bool]:
    """Axes that may vary, per input, and whether they were asked for (then a fixed one is an error).

    Args:
        dynamic: None for the first axis of every input that has the first input's batch size; False or {} for none;
            axes of the first input, as (0, 2, 3) or {0: "N", 2: "H"}; or such a choice per input name.

    Raises:
        ExportError: an axis that the input does not have, or an unknown input.
    """
    if dynamic is None:
        batch = tensors[0].shape[:1]
        return tuple({0: "N"} if tensor.dim() and tensor.shape[:1] == batch else {} for tensor in tensors), False
    if not dynamic:
        return tuple({} for _ in tensors), True
    per_input: dict[str, Any] = {}
    if isinstance(dynamic, Mapping) and all(isinstance(key, str) for key in dynamic):
        per_input = dict(dynamic)
    else:
        per_input = {names[0]: dynamic}
    unknown = sorted(set(per_input) - set(names))
    if unknown:
        raise ExportError(f"dynamic: expected inputs of {', '.join(names)}, received {', '.join(unknown)}")
    found = []
    for name, tensor in zip(names, tensors, strict=True):
        chosen = per_input.get(name, {})
        if not isinstance(chosen, Mapping):
            chosen = {axis: AXIS_NAMES.get(axis, f"axis{axis}") for axis in chosen}
        axes: Axes = {}
        for axis, label in chosen.items():
            if not isinstance(axis, int) or not -tensor.dim() <= axis < tensor.dim():
                raise ExportError(f"dynamic: {name} has axes 0 … {tensor.dim() - 1}, received {axis}")
            label = getattr(label, "__name__", label)
            axes[axis % tensor.dim()] = label if isinstance(label, str) else AXIS_NAMES.get(axis, f"axis{axis}")
        found.append(axes)
    return tuple(found), True


def capture(
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Any = None,
) -> Captured:
    """Trace `network` on `tensors` into one graph.

    Raises:
        ExportError: the graph depends on values of the input, an operator cannot be traced, or an axis that was asked
            to vary is fixed by the network.
    """
    axes, asked = dynamic_axes(dynamic, inputs, tensors)
    notes: list[str] = []
    example = _for_tracing(tensors, axes)
    try:
        program = export(network, example, axes)
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
    if any(_writes(node) or _is_transform(node.target) for node in program.graph.nodes):
        program = _decomposed(program)
    graph = flat_graph(program, inputs)
    axes = _kept_axes(graph, axes, asked, inputs, notes)
    labels = _labels(graph, axes)
    found = [
        Port(name, _type_of(node), tuple(_size(size, labels) for size in shape(node)))
        for name, node in zip(inputs, placeholders(graph.graph), strict=True)
    ]
    results = [
        Port(name, _type_of(node), tuple(_size(size, labels) for size in shape(node)))
        for name, node in zip(outputs, results_of(graph.graph), strict=True)
    ]
    return Captured(graph, tuple(found), tuple(results), axes, notes, guard)


def _guard(program: torch.export.ExportedProgram) -> Callable[..., object] | None:
    if not getattr(program, "_guards_code", None):
        return None
    with quiet():
        found: Callable[..., object] | None = getattr(program.module(check_guards=True), "_guards_fn", None)
    return found


def export(network: torch.nn.Module, tensors: Sequence[Tensor], axes: Sequence[Axes]) -> torch.export.ExportedProgram:
    """`torch.export.export` of a network or a flat graph, with the named axes dynamic."""
    hints: tuple[Any, ...] = tuple(dict.fromkeys(chosen, torch.export.Dim.AUTO) for chosen in axes)
    shapes = (hints,) if isinstance(network, FlatNetwork) else hints
    with quiet(), _masks_as_given(), redirect_stderr(io.StringIO()):  # where it prints graphs that it cannot trace
        return torch.export.export(network, tuple(tensors), dynamic_shapes=shapes, strict=False)


@contextmanager
def _masks_as_given() -> Iterator[None]:
    """torch's transformer compares its mask with a causal one, and control flow must not depend on a tensor's values.

    The answer only chooses an algorithm; the mask is applied either way.
    """
    before = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = before


def _for_tracing(tensors: Sequence[Tensor], axes: Sequence[Axes]) -> tuple[Tensor, ...]:
    """Sizes of 1 are taken as constants by the tracer: a dynamic axis gets at least two samples."""
    result = []
    for tensor, chosen in zip(tensors, axes, strict=True):
        for axis in chosen:
            if tensor.shape[axis] == 1:
                tensor = torch.cat([tensor, tensor], axis)
        result.append(tensor)
    return tuple(result)


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


# ---- the graph


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def results_of(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """The nodes that a flat graph returns."""
    output = next(node for node in graph.nodes if node.op == "output")
    return tuple(output.args[0])


def _writes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments and cannot simply be replaced by its out-of-place form."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable and not _harmless(node)


def _is_transform(target: Any) -> bool:
    """Whether an operator applies other operators, such as autocast, vmap or a branch."""
    functorch = getattr(target, "__module__", None) or ""
    return isinstance(target, HigherOrderOperator) or functorch.startswith("torch._functorch")


def _harmless(node: fx.Node) -> bool:
    """Whether nobody sees the argument after an in-place operator: then `relu_` is `relu`."""
    first = node.args[0] if node.args else None
    if _out_of_place(node.target) is None or not isinstance(first, fx.Node) or first.op != "call_function":
        return False
    order = {other: place for place, other in enumerate(node.graph.nodes)}
    if any(order[user] > order[node] for user in first.users):
        return False
    shared = [first, *(user for user in first.users if user is not node)]
    return not any(_is_view(other) for other in shared)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.op != "output"
    if str(node.target).split(".")[1] in ("reshape", "contiguous", "to", "flatten", "dropout", "expand_as", "squeeze"):
        return True  # these may return their argument
    return not schema.is_mutable and any(result.alias_info is not None for result in schema.returns)


def _out_of_place(target: Any) -> Any:
    """aten.relu_.default → aten.relu.default; None where there is none."""
    namespace, name, overload = str(target).split(".")
    if namespace != "aten" or not name.endswith("_") or not hasattr(aten, name[:-1]):
        return None
    packet = getattr(aten, name[:-1])
    return getattr(packet, overload) if overload in packet.overloads() else None


def _decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    with quiet():
        decomposed: torch.export.ExportedProgram = program.run_decompositions({})
    return decomposed


def flat_graph(program: torch.export.ExportedProgram, names: Sequence[str]) -> fx.GraphModule:
    """The program as a graph module of its own: named placeholders, a flat tuple of results, no checks."""
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
        elif not _is_check(node):
            values[node] = graph.node_copy(node, values.__getitem__)
            if node.op == "get_attr":
                attributes[str(node.target)] = _attribute(source, str(node.target))
    for node in list(graph.nodes):
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) and _harmless_write(node):
            node.target = _out_of_place(node.target)
    canonicalize(graph)
    graph.eliminate_dead_code()
    graph.lint()
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return fx.GraphModule({name: value for name, value in attributes.items() if name in used}, graph)


def _is_check(node: fx.Node) -> bool:
    """An assertion, or a buffer's new value at the end, which no exported file can keep."""
    if node.op != "call_function":
        return False
    target = node.args[0] if node.args else None
    written = isinstance(target, fx.Node) and target.op in ("get_attr", "placeholder")
    stored = str(node.target) == "aten.copy_.default" and written
    return stored or "assert" in str(node.target)


def _distinct_results(graph: fx.Graph, results: list[fx.Node]) -> tuple[fx.Node, ...]:
    """Inputs, constants and repeated results are copied, since every output of a file is a tensor of its own."""
    found: list[fx.Node] = []
    for result in results:
        if result.op != "call_function" or result in found:
            copied = graph.call_function(aten.clone.default, (result,))
            copied.meta = {"val": result.meta.get("val")}
            result = copied
        found.append(result)
    return tuple(found)


def _harmless_write(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable) and _out_of_place(node.target) is not None


def _attribute(module: Any, path: str) -> Any:
    return operator.attrgetter(path)(module)


def _type_of(node: fx.Node) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _kept_axes(
    graph: fx.GraphModule, axes: tuple[Axes, ...], asked: bool, names: Sequence[str], notes: list[str]
) -> tuple[Axes, ...]:
    """The axes that are still dynamic after tracing."""
    kept = []
    for name, node, chosen in zip(names, placeholders(graph.graph), axes, strict=True):
        sizes = shape(node)
        fixed = [axis for axis in chosen if isinstance(sizes[axis], int)]
        if fixed and asked:
            where = ", ".join(f"axis {axis} ({chosen[axis]}) at {sizes[axis]}" for axis in fixed)
            raise ExportError(
                f"dynamic: the network fixes {where} of {name}; use sizes taken from the input, "
                "or leave the axis out of `dynamic`"
            )
        notes.extend(f"axis {axis} of {name} is fixed at {sizes[axis]} by the network" for axis in fixed)
        kept.append({axis: label for axis, label in chosen.items() if axis not in fixed})
    return tuple(kept)


def _labels(graph: fx.GraphModule, axes: Sequence[Axes]) -> dict[str, str]:
    """Symbol → the name of its axis."""
    labels: dict[str, str] = {}
    for node, chosen in zip(placeholders(graph.graph), axes, strict=True):
        for axis, label in chosen.items():
            labels.setdefault(str(node.meta["val"].shape[axis]), label)
    return labels


def _size(size: Any, labels: Mapping[str, str]) -> int | str:
    return size if isinstance(size, int) else renamed(str(size), labels)


def renamed(expression: str, labels: Mapping[str, str]) -> str:
    """An expression of symbols with the axes' names in their places."""
    for symbol, label in sorted(labels.items(), key=lambda pair: -len(pair[0])):
        expression = expression.replace(symbol, label)
    return expression
