"""Compare a folded model with the original: its outputs or, if these are unstable or random, its folded layers."""

from typing import Any

import numpy as np
import onnx
from feeding import feed, fixed_size, inputs_of, tries
from onnx import ModelProto, TensorProto
from running import BATCH, TOLERANCE, difference_of, message_of, outputs_of, session

ROUNDING = 1e-5  # relative to the largest output: allowed at least
ALLOWED = {TensorProto.FLOAT16: 16 * 2.0**-11, TensorProto.BFLOAT16: 16 * 2.0**-8}
"""Type of weights → difference after folding, relative to the largest output: 16 roundings."""
Outputs = list[Any]


def largest_difference(a: ModelProto, b: ModelProto, layers: list[str], seed: int = 0) -> tuple[float, float]:
    """The difference of two models on the same inputs and the difference allowed, relative to the largest output.

    Allowed is ROUNDING (ALLOWED for weights of a narrower type), or 4 × the difference that ONNX Runtime's own
    optimisations make if that is more. If they change the outputs entirely, such as the order of a detector's boxes,
    or if the outputs are random, that would allow anything: then the values `layers`, which both models have, are
    compared.

    Raises:
        RuntimeError: a model cannot be run, or the values of `layers` are unstable or random, too.
    """
    types = {tensor.data_type for tensor in (*a.graph.initializer, *b.graph.initializer)}
    least = max(ROUNDING, *(ALLOWED.get(kind, 0.0) for kind in types)) if types else ROUNDING
    plain, again, own, other = _answers(a, b, seed)
    if _unstable(plain, again, own, least):
        if not layers:  # nothing was folded
            return 0.0, least
        plain, again, own, other = _answers(_showing(a, layers), _showing(b, layers), seed)
        if _unstable(plain, again, own, least):
            raise RuntimeError("rounding alone changes its values, or they are random")
    rounding = _largest(plain, own)
    rounding = rounding if np.isfinite(rounding) else 0.0  # of float16 that overflows: allows nothing
    return _largest(plain, other), max(4 * rounding, least)


def _unstable(plain: Outputs, again: Outputs, own: Outputs, least: float) -> bool:
    """Whether outputs are random, or rounding changes them by far more than it should; float16 may overflow."""
    rounding = _largest(plain, own)
    return _largest(plain, again) > least or max(TOLERANCE, least) < rounding < np.inf


def _largest(a: Outputs, b: Outputs) -> float:
    return max((difference_of(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _answers(a: ModelProto, b: ModelProto, seed: int) -> tuple[Outputs, Outputs, Outputs, Outputs]:
    """The outputs of `a` without optimisations, once more, with optimisations, and of `b`."""
    inputs = inputs_of(a)
    if other := [value.name for value in inputs if not value.type.HasField("tensor_type")]:
        raise RuntimeError(
            f"random inputs are generated for tensors only, not for {', '.join(other)}; export it with tensor inputs"
        )
    reason: Exception = RuntimeError("it has no inputs")
    try:
        plain, own, other = session(a, False), session(a), session(b)
    except Exception as error:
        raise RuntimeError(f"the model could not be run ({message_of(error)})") from error
    for sizes in range(tries(inputs)):
        for size in {fixed_size(inputs) or BATCH, 1}:
            try:
                one = feed(inputs, size, sizes, np.random.default_rng(seed), 1.0)
                first, again, second, third = (outputs_of(runner, one, "") for runner in (plain, plain, own, other))
                return first, again, second, third
            except Exception as error:
                reason = error
    raise RuntimeError(f"the model could not be run ({message_of(reason)})")


def _showing(model: ModelProto, values: list[str]) -> ModelProto:
    """A copy whose outputs are these values."""
    shown = ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    return shown
