"""Run a model on a sample alone and in two batches: its output must not depend on the rest of the batch."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from graph import Graph, attribute, first_line
from onnx import ModelProto, TensorProto

TOLERANCE = 1e-3  # relative to the largest output: more than rounding, far less than the effect of batch statistics
ALLOWED = {TensorProto.FLOAT16: 16 * 2.0**-11, TensorProto.BFLOAT16: 16 * 2.0**-8}
"""Type of weights → difference after folding, relative to the largest output: 16 roundings."""
BATCH = 4
SIZES = {"image": (224, 64, 32, 28, 256, 640), "other": (16, 32, 8, 64, 1)}
NOT_A_BATCH = re.compile(r"seq|time|step|len|token|height|width|node|point|^h$|^w$|^t$|^l$", re.IGNORECASE)
Feed = dict[str, np.ndarray]


@dataclass
class Invariance:
    """Whether outputs depend on the batch. `checked`: False if there is no batch axis or the model cannot be run."""

    checked: bool
    reason: str = ""
    difference: float = 0.0  # relative to the largest output
    fixed: int | None = None  # the only batch size that the model accepts


def measure(model: ModelProto, seed: int = 0) -> Invariance:
    """Compare the first sample's outputs alone and in two batches."""
    inputs = _inputs(model)
    if not inputs:
        return Invariance(False, "the model has no inputs")
    firsts = [dims[0] for value in inputs if (dims := _dims(value))]
    if not firsts or any(isinstance(first, str) and NOT_A_BATCH.search(first) for first in firsts):
        return Invariance(False, "the first axis of the inputs is not a batch axis")
    if _sequence_first(model):
        return Invariance(False, "the first axis of a recurrent layer is time")
    fixed = _fixed(inputs)
    attempts = [(model, BATCH, True)] if fixed is None else [(_open(model), BATCH, True), (model, fixed, False)]
    reason = ""
    for candidate, size, resizable in attempts:
        for sizes in range(6):
            try:
                return replace(_compare(candidate, inputs, size, sizes, resizable, seed), fixed=fixed)
            except _NoBatchAxis as error:  # a fixed first axis may be a height; of length 1, it is a batch
                return Invariance(False, str(error), fixed=fixed if fixed == 1 else None)
            except Exception as error:  # ONNX Runtime has no common base class of errors
                reason = first_line(error)
    return Invariance(False, f"it could not be run ({reason})", fixed=fixed)


class _NoBatchAxis(Exception):
    pass


def session(model: ModelProto, optimised: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _compare(model: ModelProto, inputs: list[Any], size: int, sizes: int, resizable: bool, seed: int) -> Invariance:
    runner = session(model)
    names = [output.name for output in runner.get_outputs()]
    rng = np.random.default_rng(seed)
    one = feed(inputs, size, sizes, rng, 1.0)
    batches = {value.name for value in inputs if _is_batch(value, inputs)}
    spread = feed(inputs, size, sizes, rng, 3.0)
    other = {n: np.concatenate((one[n][:1], rows[1:])) if n in batches else one[n] for n, rows in spread.items()}
    first, again, second = runner.run(names, one), runner.run(names, one), runner.run(names, other)
    per_sample = [
        k for k, array in enumerate(first) if isinstance(array, np.ndarray) and array.ndim and len(array) == size
    ]
    if resizable:  # leave out axes that happen to be as long as the batch
        alone = runner.run(names, {name: rows[:1] if name in batches else rows for name, rows in one.items()})
        per_sample = [k for k in per_sample if isinstance(alone[k], np.ndarray) and len(alone[k]) == 1]
    if size == 1:
        return Invariance(False, "it accepts one sample at a time")
    if not per_sample:
        raise _NoBatchAxis("no output has a batch axis")
    per_sample = [k for k in per_sample if _has_numbers(first[k]) or _has_numbers(second[k])]
    if not per_sample:
        return Invariance(False, "no output with a batch axis has finite real numbers")
    pairs = [(first[k][0], second[k][0]) for k in per_sample]
    if resizable:
        pairs += [(first[k][0], alone[k][0]) for k in per_sample]
    random = any(_difference(first[k], again[k]) > TOLERANCE for k in per_sample)
    difference = max(_difference(a, b) for a, b in pairs)
    if not random and difference > TOLERANCE and _fixed(inputs) not in (None, 1):
        reversed_ = runner.run(names, {name: rows[::-1] if name in batches else rows for name, rows in one.items()})
        if any(_difference(first[k], reversed_[k][::-1]) > TOLERANCE for k in per_sample):  # as for rows of an image
            raise _NoBatchAxis("the first axis of the inputs is not a batch axis")
    return Invariance(not random, "two runs on one input differ" if random else "", difference)


def _has_numbers(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).any())


def _difference(a: Any, b: Any) -> float:
    """Largest difference relative to the largest value; 0 for integers, such as labels."""
    if isinstance(a, list) and isinstance(b, list):
        return max(map(_difference, a, b), default=0.0) if len(a) == len(b) else float("inf")
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    size = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    return float(np.abs(a - b).max(initial=0.0) / size) if size else 0.0


def feed(inputs: list[Any], size: int, sizes: int, rng: np.random.Generator, spread: float) -> Feed:
    """Random inputs with batch size `size`; `sizes`: index into SIZES for other dynamic axes."""
    arrays = {}
    for value in inputs:
        dims = _dims(value)
        choice = SIZES["image" if len(dims) in (4, 5) else "other"]
        free = choice[sizes % len(choice)]
        shape = [dim if isinstance(dim, int) and dim > 0 else free for dim in dims]
        if _is_batch(value, inputs):
            shape[0] = size
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        if dtype.kind == "b" or "mask" in value.name.lower():
            arrays[value.name] = np.ones(shape, dtype)
        elif dtype == np.uint8:
            arrays[value.name] = np.asarray(rng.integers(0, 256, shape), dtype)
        elif dtype.kind in "iu":
            limit = 2 + int(3 * spread) if sizes < 3 else 2  # then an embedding may be small
            arrays[value.name] = np.asarray(rng.integers(0, limit, shape), dtype)
        else:
            arrays[value.name] = np.asarray(rng.random(shape) * spread + (spread - 1) / 2, dtype)
    return arrays


def _is_batch(value: Any, inputs: list[Any]) -> bool:
    """Whether an input's first axis is the batch: its size is dynamic, or that of no input is."""
    fixed = [isinstance(dims[0], int) and dims[0] > 0 for each in inputs if (dims := _dims(each))]
    dims = _dims(value)
    return bool(dims) and (all(fixed) or not (isinstance(dims[0], int) and dims[0] > 0))


def _inputs(model: ModelProto) -> list[Any]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _dims(value: Any) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _fixed(inputs: list[Any]) -> int | None:
    """The batch size if it is the same number in all inputs, else None."""
    sizes = {dims[0] for value in inputs if (dims := _dims(value))}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) and size > 0 else None


def _open(model: ModelProto) -> ModelProto:
    """A copy with dynamic first axes, which may not run if the graph contains the size elsewhere."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    stored = {tensor.name for tensor in opened.graph.initializer}
    for value in [*opened.graph.input, *opened.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if dims and value.name not in stored:
            dims[0].ClearField("dim_value")
            dims[0].dim_param = "batch"
    del opened.graph.value_info[:]
    return opened


def _sequence_first(model: ModelProto) -> bool:
    """Whether a recurrent layer reads a graph input directly, with time as its first axis."""
    graph, names = Graph(model.graph, {}), {value.name for value in _inputs(model)}
    return any(
        node.op_type in ("LSTM", "GRU", "RNN") and not attribute(node, "layout", 0) and node.input[0] in names
        for node in graph.proto.node
    )


def largest_difference(a: ModelProto, b: ModelProto, seed: int = 0) -> tuple[float, float]:
    """The difference of two models on the same inputs and the difference allowed, relative to the largest output.

    Allowed is 1e-5 (ALLOWED for weights of a narrower type), or 4 × the difference that ONNX Runtime's own
    optimisations make if that is more.

    Raises:
        RuntimeError: a model cannot be run.
    """
    inputs = _inputs(a)
    reason: Exception | None = None
    for sizes in range(6):
        for size in {_fixed(inputs) or BATCH, 1}:
            try:
                one = feed(inputs, size, sizes, np.random.default_rng(seed), 1.0)
                plain, own, other = (m.run(None, one) for m in (session(a, False), session(a), session(b)))
            except Exception as error:
                reason = error
                continue
            rounding = max((_difference(x, y) for x, y in zip(plain, own, strict=True)), default=0.0)
            difference = max((_difference(x, y) for x, y in zip(plain, other, strict=True)), default=0.0)
            types = {tensor.data_type for tensor in (*a.graph.initializer, *b.graph.initializer)}
            rounding = rounding if np.isfinite(rounding) else 0.0  # of float16 that overflows: allows nothing
            return difference, max(4 * rounding, 1e-5, *(ALLOWED.get(kind, 0.0) for kind in types))
    raise RuntimeError(f"the model could not be run ({reason})")
