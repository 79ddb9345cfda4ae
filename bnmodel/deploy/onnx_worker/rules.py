"""Rules that find faults in the nodes of a graph. Each rule yields findings as dictionaries."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from folding import partner
from graph import Graph, attribute, batch_norms, in_training
from onnx import NodeProto

EXPLODING = 4096.0  # γ/√(σ² + ε) above which float16 overflows (65,504) for inputs up to 16
DEAD = 1e-6  # γ/√(σ² + ε) relative to the layer's median, below which a channel is constant
MANY = 0.25  # share of dead or exploding channels from which they are a warning
INSTEAD = "export the eval copy: torch.onnx.export(model.eval(), …)"
FOLD = "bnmodel.deploy.inspect(FILE, fold_to=OUT)  # on the command line: --fold OUT"
REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMax", "ReduceMin"),
    "MeanVarianceNormalization",  # over axes 0, 2, 3 by default
)

Found = dict[str, Any]


def found(code: str, severity: str, layer: str, message: str, remedy: str) -> Found:
    return {"code": code, "severity": severity, "layer": layer, "message": message, "remedy": remedy}


def modes(graph: Graph, version: int) -> Iterator[Found]:
    """Batch norms in training mode, or with statistics computed from an input."""
    for node in batch_norms(graph):
        name = graph.label(node)
        if node.input[0] not in graph.from_inputs:  # normalises a constant, as weight standardisation does
            continue
        if in_training(node, version):
            message = "BatchNormalization is in training mode: it normalises with the mean and variance of the batch"
            yield found("training-mode", "error", name, message, INSTEAD)
        elif len(node.input) == 5 and any(value in graph.from_inputs - graph.inputs for value in node.input[3:]):
            message = "the mean and variance of this batch norm are computed from the batch, not stored"
            remedy = "train with track_running_stats=True, or bnmodel.recalibrate(model, batches); then export again"
            yield found("batch-statistics-in-eval", "error", name, message, remedy)


def statistics(graph: Graph, version: int) -> Iterator[Found]:
    """Stored statistics that are invalid or never updated; channels that are dead or explode."""
    for node in batch_norms(graph):
        arrays = [graph.constant(name) for name in node.input[1:5]]
        if in_training(node, version) or any(array is None for array in arrays):
            continue
        scale, shift, mean, var = (np.asarray(array, np.float64) for array in arrays)
        name, epsilon = graph.label(node), float(attribute(node, "epsilon", 1e-5))
        remedy = "load the trained checkpoint (strict=True) and export again, or bnmodel.recalibrate(model, batches)"
        if len({array.size for array in (scale, shift, mean, var)}) > 1:
            sizes = ", ".join(str(array.size) for array in (scale, shift, mean, var))
            message = f"γ, β, mean and variance have {sizes} values, expected one per channel in each"
            yield found("invalid-statistics", "error", name, message, remedy)
            continue
        broken = ~np.isfinite([scale, shift, mean, var]).all(0) | (var < 0) | (var + epsilon <= 0)
        if broken.any():
            count = int(broken.sum())
            message = f"{count} of {broken.size} channels have NaN or infinite values, or a negative variance"
            if (var[broken] == 0).any():
                message += ", or a variance of 0 without ε"
            yield found("invalid-statistics", "error", name, message, remedy)
            continue
        if mean.size and not mean.any() and (var == 1).all():
            message = f"running mean 0 and variance 1 in all {mean.size} channels, as at initialisation"
            yield found("never-updated", "error", name, message, remedy)
            continue
        with np.errstate(all="ignore"):
            amplification = np.abs(scale) / np.sqrt(var + epsilon)
        yield from _channels(name, amplification)


def _channels(name: str, amplification: np.ndarray) -> Iterator[Found]:
    count = amplification.size
    typical = float(np.median(amplification))
    dead = int((amplification <= DEAD * max(typical, 1e-12)).sum())
    if dead:
        message = f"{dead} of {count} channels have γ/√(σ² + ε) ≈ 0: their output is constant"
        yield found("dead-channels", _severity(dead, count), name, message, "prune the channels, or leave them")
    exploding = int((amplification > EXPLODING).sum())
    if exploding:
        largest = float(amplification.max())
        message = f"{exploding} of {count} channels are amplified by up to {largest:.1e}: float16 overflows"
        remedy = "keep this layer in float32, or recalibrate its statistics: bnmodel.recalibrate(model, batches)"
        yield found("exploding-channels", _severity(exploding, count), name, message, remedy)


def _severity(count: int, total: int) -> str:
    return "warning" if count >= MANY * total else "note"


def dropout(graph: Graph, version: int) -> Iterator[Found]:
    """Active dropout: in training mode, or made of random operators."""
    for node in graph.proto.node:
        name = graph.label(node)
        if node.op_type == "Dropout":
            ratio = _number(graph, node, 1, 0.5) if version >= 12 else attribute(node, "ratio", 0.5)
            if version >= 12:
                active = len(node.input) > 2 and bool(node.input[2]) and _number(graph, node, 2, 1) != 0
            else:
                active = version < 7 and not attribute(node, "is_test", 0)
            if active and ratio:
                yield found("active-dropout", "error", name, "Dropout is in training mode: answers are random", INSTEAD)
        elif node.op_type == "Bernoulli" or (node.op_type == "RandomUniformLike" and _compared(graph, node)):
            message = f"{node.op_type} masks values at random, as a dropout in training mode"
            yield found("active-dropout", "error", name, message, INSTEAD)


def _number(graph: Graph, node: NodeProto, index: int, default: float) -> float:
    value = graph.constant(node.input[index]) if len(node.input) > index and node.input[index] else None
    return default if value is None or not value.size else float(value.reshape(-1)[0])


def _compared(graph: Graph, node: NodeProto) -> bool:
    names = ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")
    return any(consumer.op_type in names for consumer in graph.consumers[node.output[0]])


def batch_reductions(graph: Graph) -> list[NodeProto]:
    """Reductions over axis 0 of values computed from the inputs, which affect an output."""
    nodes = []
    for node in graph.proto.node:
        if node.op_type in REDUCTIONS and node.input[0] in graph.from_inputs:
            axes = _axes(graph, node)
            rank = graph.ranks.get(node.input[0])
            over = not axes and not attribute(node, "noop_with_empty_axes", 0)
            over = over or any(axis == 0 or (rank is not None and axis == -rank) for axis in axes)
            if over and graph.descendants(set(node.output)) & graph.outputs:
                nodes.append(node)
    return nodes


def dynamically_quantised(graph: Graph) -> list[str]:
    """Names of the nodes that compute a scale of quantisation from the batch."""
    return [graph.label(node) for node in graph.proto.node if node.op_type.startswith("DynamicQuantize")]


def _axes(graph: Graph, node: NodeProto) -> list[int]:
    listed = attribute(node, "axes")
    if listed is None and len(node.input) > 1 and node.input[1]:
        listed = graph.constant(node.input[1])
    return [] if listed is None else [int(axis) for axis in np.asarray(listed).reshape(-1)]


def unfolded(graph: Graph, version: int) -> Iterator[Found]:
    """Batch norms that could be folded into a neighbour; those in branches and loops are left as they are."""
    if graph.outer is not None:
        return
    for node in batch_norms(graph):
        if not in_training(node, version) and (other := partner(graph, node)) is not None:
            message = f"could be folded into {other.op_type} {graph.label(other)}"
            yield found("unfolded", "note", graph.label(node), message, FOLD)
