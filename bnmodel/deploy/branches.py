"""Compare a traced graph with its network at sizes at which the network may branch.

torch.export assumes the conditions on sizes that hold for the example, such as `H > W` or `round(0.75 · H) == 18`, and
the graph is only guaranteed to be right for sizes that meet them. Some conditions are real branches; most only choose
between equivalent algorithms. Graph and network are therefore run and compared at sizes that violate a condition.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnmodel.deploy.axes import batch_size
from bnmodel.deploy.capture import Captured, capture
from bnmodel.deploy.cases import OneSize, sizes_of, with_size
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.loading import as_array
from bnmodel.deploy.nodes import layer_name, operator_name
from bnmodel.deploy.preflight import only_its_layers
from bnmodel.deploy.reference import called, evaluated
from bnmodel.deploy.signature import Arguments, FlatNetwork, output_names
from bnmodel.deploy.tracing import quiet

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1001, 1536, 2049, 4097)
TRIES = 4  # per axis, of smaller and of larger sizes
LARGEST = 1 << 22  # input elements per try
CLOSE = 1e-3  # relative; the other side of a branch differs by more


def captured_on_one_path(network: FlatNetwork, given: Arguments, output: Any = None, dynamic: Any = None) -> Captured:
    """`capture`, with the batch size fixed if the graph differs from the network at another size.

    output, dynamic: as in `certify`.

    Raises:
        ExportError: as `capture`; the network raises on the example; or they differ along an axis that was asked for.
    """
    unused = network.copy()  # caches of a size that forward fills would be traced as constants
    with only_its_layers(network):
        names = output_names(called(network, given.tensors), output, given.names)
    _refuse_nested_tensors(network, given.tensors)
    captured = capture(unused, given.tensors, given.names, names, dynamic)
    try:
        require_one_path(network, captured, given.tensors)
    except OneSize as error:
        with suppress(ExportError):  # sizes that pass through `int` stay dynamic if traced from bytecode
            strict = capture(unused, given.tensors, given.names, names, dynamic, strict=True)
            require_one_path(network, strict, given.tensors)
            return strict
        if dynamic is not None:
            raise
        return with_fixed_batch(network, given, names, error)
    return captured


def with_fixed_batch(network: FlatNetwork, given: Arguments, output: Any, error: OneSize) -> Captured:
    """The network captured for the example's sizes only, with a note that says why."""
    captured = captured_on_one_path(network, given, output, False)
    reason = str(error).removeprefix("dynamic: ")
    captured.notes.append(f"the batch size is fixed at {batch_size(given.tensors)}: {reason}")
    return captured


def _refuse_nested_tensors(network: FlatNetwork, tensors: Sequence[Tensor]) -> None:
    """Refuse a transformer whose fast path in eval mode, which no file has, changes the outputs."""
    names = [name for name, part in network.model.named_modules() if getattr(part, "use_nested_tensor", False) is True]
    if not names:
        return
    fast, before = evaluated(network, tensors), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        slow = evaluated(network, tensors)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    if not all(_close(as_array(a), as_array(b)) for a, b in zip(fast, slow, strict=True)):
        raise ExportError(
            f"{names[0] or type(network.model).__name__}: in eval mode, torch's TransformerEncoder returns 0 at padded "
            "positions, and in files it does not; build it with enable_nested_tensor=False, or set its "
            "use_nested_tensor = False"
        )


def require_one_path(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> None:
    """Compare graph and network at sizes that violate the tracer's conditions; note sizes that are too large to try.

    Raises:
        OneSize: the network computes something else at another size.
    """
    batch = captured.inputs[0].shape[0] if captured.batched else None  # golden vectors are single samples
    for label, size in sizes_of(captured.axes, tensors).items():
        tried, untried = {False: 0, True: 0}, 0  # by whether the size is larger than the example's
        candidates = {*SIZES, size, size - 1, size + 1, size // 2, 2 * size} - {0}
        for other in sorted(candidates, key=lambda one: (abs(one - size), one)):
            case = _resized(captured, tensors, label, size, other)
            single = other == 1 and label != batch  # the tracer assumes, without a condition, that no size is 1
            if not single and _holds(captured.guard, case):
                continue
            if sum(tensor.numel() for tensor in case) > LARGEST:
                untried = untried or other
            elif (tried[other > size] < TRIES or single) and (same := _same(network, captured, case)) is not None:
                tried[other > size] += not single
                if not same:
                    raise OneSize(
                        f"dynamic: the network computes something else at {label} = {other} than at {size}, since "
                        f"{_cause(captured)}; compute with sizes as tensors, or leave the axis fixed"
                    )
        if untried and not tried[True]:
            captured.notes.append(f"sizes of {label} from {untried} on, where the network may branch, were not tried")


def _cause(captured: Captured) -> str:
    nodes = captured.graph.graph.nodes
    recurrent = [layer_name(node) for node in nodes if operator_name(node) in ("rnn_tanh", "rnn_relu")]
    fixed = f"torch.export fixes the number of time steps of {', '.join(recurrent)}, or " if recurrent else ""
    return f"{fixed}its control flow depends on sizes"


def _resized(captured: Captured, tensors: Sequence[Tensor], label: str, size: int, other: int) -> list[Tensor]:
    """The example at another size; on the meta device if that is large."""
    elements = sum(tensor.numel() for tensor in tensors) * max(1, other // size)
    if elements > 2 * LARGEST:
        tensors = [tensor.to("meta") for tensor in tensors]
    return with_size(captured.axes, tensors, label, size, other)


def _holds(guard: Callable[..., object] | None, case: Sequence[Tensor]) -> bool:
    if guard is None:
        return True
    try:
        guard(*case)
    except (AssertionError, ArithmeticError):  # the condition is not defined at this size, as a division by 0
        return False
    return True


def _same(network: FlatNetwork, captured: Captured, case: list[Tensor]) -> bool | None:
    """Whether network and graph agree; None if the network raises, or returns other numbers of tensors or axes."""
    try:
        expected = evaluated(network, case)
    except ExportError:
        return None
    if [output.dim() for output in expected] != [len(port.shape) for port in captured.outputs]:
        return None
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # graphs print their errors
            received = captured.graph(*(tensor.clone() for tensor in case))
    except Exception:  # a graph raises many kinds of errors at other sizes
        return False
    return all(_close(as_array(a), as_array(b)) for a, b in zip(received, expected, strict=True))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    size = np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0.0)
    return bool(np.allclose(a, b, rtol=CLOSE, atol=CLOSE * float(size), equal_nan=True))
