"""Run a model on a sample alone and in two batches: its output must not depend on the rest of the batch."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from feeding import NOT_A_BATCH, Feed, batch_axes, batch_name, dims_of, feed, fixed_size, inputs_of, tries
from graph import Graph, attribute, first_line, opset
from messages import without_preamble
from onnx import ModelProto

TOLERANCE = 1e-3  # relative to the largest output: more than rounding, far less than the effect of batch statistics
ROUNDED = 0.1  # effect of reversing the batch that rounding explains, relative to the effect of its other samples
BATCH = 4
ONE = "it accepts one sample at a time"
OLDEST = 7  # opset: ONNX Runtime lacks operators of older ones
RUNS = 9  # opset to which older files are converted


@dataclass
class Invariance:
    """Whether outputs depend on the batch. `checked`: False if there is no batch axis or the model cannot be run."""

    checked: bool
    reason: str = ""
    difference: float = 0.0  # relative to the largest output
    fixed: int | None = None  # the only batch size that the model accepts


def measure(model: ModelProto, seed: int = 0) -> Invariance:
    """Compare a sample's outputs alone, as the first of a batch, and as the last of another batch."""
    inputs = inputs_of(model)
    if not inputs:
        return Invariance(False, "the model has no inputs")
    firsts = [dims[0] for value in inputs if (dims := dims_of(value))]
    named = batch_name(inputs)
    if not firsts or (not named and any(isinstance(one, str) and NOT_A_BATCH.search(one) for one in firsts)):
        return Invariance(False, "the first axis of the inputs is not a batch axis")
    if not named and _sequence_first(model):
        return Invariance(False, "the first axis of a recurrent layer is time")
    fixed = fixed_size(inputs)
    attempts = [(model, BATCH, True), (model, 1, False)]
    if fixed is not None:
        attempts = [(_open(model, batch_axes(inputs)), BATCH, True), (model, fixed, False)]
    reasons: dict[int, str] = {}  # by batch size
    for candidate, size, resizable in attempts:
        try:
            runner = session(candidate)
        except Exception as error:  # ONNX Runtime has no common base class of errors
            reasons[size] = message_of(error)
            continue
        for sizes in range(tries(inputs)):
            try:
                measured = _compare(runner, inputs, size, sizes, resizable, seed)
                if size == 1 and fixed is None:
                    measured.reason = f"it runs with one sample, not with {BATCH} ({reasons[BATCH]})"
                return replace(measured, fixed=fixed)
            except _NoBatchAxis as error:  # a fixed first axis may be a height; of length 1, it is a batch
                return Invariance(False, ONE if fixed == 1 else str(error), fixed=fixed if fixed == 1 else None)
            except Exception as error:
                reasons[size] = message_of(error)
    return Invariance(False, f"it could not be run ({list(reasons.values())[-1]})", fixed=fixed)


class _NoBatchAxis(Exception):
    pass


def session(model: ModelProto, optimised: bool = True) -> onnxruntime.InferenceSession:
    if opset(model) < OLDEST and any(not node.domain for node in model.graph.node):
        model = onnx.version_converter.convert_version(model, RUNS)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def message_of(error: Exception) -> str:
    """The first line of the message, without references to ONNX Runtime's source files."""
    message: str = first_line(RuntimeError(without_preamble(str(error))))
    return message


def _compare(
    runner: onnxruntime.InferenceSession, inputs: list[Any], size: int, sizes: int, resizable: bool, seed: int
) -> Invariance:
    rng, axes, name = np.random.default_rng(seed), batch_axes(inputs), batch_name(inputs)
    one, spread = feed(inputs, size, sizes, rng, 1.0), feed(inputs, size, sizes, rng, 3.0)
    sample, rest = _samples(one, axes, slice(1)), _samples(spread, axes, slice(1, None))
    other = {key: np.concatenate([rest[key], sample[key]], axes[key]) if key in axes else one[key] for key in one}
    first, again, second = (outputs_of(runner, given, name) for given in (one, one, other))
    per_sample = [k for k, rows in enumerate(first) if isinstance(rows, np.ndarray) and rows.ndim and len(rows) == size]
    if resizable:  # leave out axes that happen to be as long as the batch
        alone = outputs_of(runner, sample, name)
        alone = [_as_batch(row, rows) for row, rows in zip(alone, first, strict=True)]
        per_sample = [k for k in per_sample if alone[k] is not None]
    if size == 1:
        return Invariance(False, ONE)
    if not per_sample:
        raise _NoBatchAxis("no output has a batch axis")
    per_sample = [k for k in per_sample if _has_numbers(first[k]) or _has_numbers(second[k])]
    if not per_sample:
        return Invariance(False, "no output with a batch axis has finite real numbers")
    pairs = [(first[k][0], second[k][-1]) for k in per_sample]
    if resizable:
        pairs += [(first[k][0], alone[k][0]) for k in per_sample]
    random = any(difference_of(first[k], again[k]) > TOLERANCE for k in per_sample)
    difference = max(difference_of(a, b) for a, b in pairs)
    if not random and difference > TOLERANCE and fixed_size(inputs) not in (None, 1):
        reversed_ = outputs_of(runner, _samples(one, axes, slice(None, None, -1)), name)
        order = max(difference_of(first[k], reversed_[k][::-1]) for k in per_sample)
        if order > max(TOLERANCE, ROUNDED * min(difference, 1.0)):  # as of the rows of an image
            raise _NoBatchAxis("the first axis of the inputs is not a batch axis")
    return Invariance(not random, "two runs on one input differ" if random else "", difference)


def _samples(given: Feed, axes: dict[str, int], rows: slice) -> Feed:
    """The inputs for some samples of a batch."""
    chosen = {name: (*[slice(None)] * axis, rows) for name, axis in axes.items()}
    return {name: array[chosen[name]] if name in chosen else array for name, array in given.items()}


def outputs_of(runner: onnxruntime.InferenceSession, given: Feed, name: str) -> list[Any]:
    """The outputs: with the axis called `name` in front; lists of scores by class as arrays."""
    outputs = []
    for info, output in zip(runner.get_outputs(), runner.run(None, given), strict=True):
        if isinstance(output, list) and output and all(isinstance(scores, dict) for scores in output):
            output = np.array([list(scores.values()) for scores in output])
        elif isinstance(output, np.ndarray) and name in info.shape and output.ndim == len(info.shape):
            output = np.moveaxis(output, info.shape.index(name), 0)
        outputs.append(output)
    return outputs


def _as_batch(alone: Any, rows: Any) -> np.ndarray | None:
    """The output for one sample as a batch of one, also if the model drops that axis; None if it is something else."""
    if not isinstance(alone, np.ndarray) or not isinstance(rows, np.ndarray):
        return None
    if alone.shape == rows.shape[1:] and alone.ndim < rows.ndim:
        return alone[None]
    return alone if alone.ndim and len(alone) == 1 else None


def _has_numbers(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).any())


def difference_of(a: Any, b: Any) -> float:
    """Largest difference relative to the largest value; 0 for integers, such as labels."""
    if isinstance(a, list) and isinstance(b, list):
        return max(map(difference_of, a, b), default=0.0) if len(a) == len(b) else float("inf")
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    size = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    return float(np.abs(a - b).max(initial=0.0) / size) if size else 0.0


def _open(model: ModelProto, axes: dict[str, int]) -> ModelProto:
    """A copy with a dynamic batch, which may not run if the graph contains the size elsewhere."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    axes = axes | {value.name: 0 for value in opened.graph.output}
    for value in [*opened.graph.input, *opened.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if dims and value.name in axes:
            dims[axes[value.name]].ClearField("dim_value")
            dims[axes[value.name]].dim_param = "batch"
    del opened.graph.value_info[:]
    return opened


def _sequence_first(model: ModelProto) -> bool:
    """Whether a recurrent layer reads a graph input directly, with time as its first axis."""
    graph, names = Graph(model.graph, {}), {value.name for value in inputs_of(model)}
    return any(
        node.op_type in ("LSTM", "GRU", "RNN") and not attribute(node, "layout", 0) and node.input[0] in names
        for node in graph.proto.node
    )
