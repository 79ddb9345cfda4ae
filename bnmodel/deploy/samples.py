"""Inputs on which exported files are compared with the network, and the network's answers."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnmodel.deploy import golden
from bnmodel.deploy.allowance import UNIT_ROUNDOFF, Yardstick, judge, measured
from bnmodel.deploy.axes import Axes
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.checks import of_one_size
from bnmodel.deploy.copying import detached_copy
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.golden import Arrays, Golden
from bnmodel.deploy.loading import as_array
from bnmodel.deploy.reference import Reference, evaluated
from bnmodel.deploy.signature import FlatNetwork, Port
from bnmodel.deploy.tracing import quiet

MIXED = 8  # least number of cases, where inputs can be mixed
FEW = 4  # number of cases where they are large and the outputs have many channels, each of which is evidence
DRAWS = 4  # random roundings of the parameters
LARGE = 100_000  # input elements per case
MANY = 16  # channels
FLOAT64_ROUNDING = 2 * 2.0**-29  # relative to float32's, doubled: the yardstick is rounded too
DISCONTINUOUS = 1e-3  # relative error above which a case has crossed a threshold of the network
MEANINGLESS = 0.3  # the like, of most cases
Tensors = list[Tensor]


class OneSize(ExportError):
    """The network accepts only one size of an axis, though its graph accepts any."""


@dataclass(frozen=True)
class Evidence:
    """Golden vectors, and how far the network itself is off on them."""

    golden: Golden
    yardsticks: list[Yardstick]


def gather(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> Evidence:
    """Cases made of the example, with the answers in float64.

    Raises:
        ExportError: the network is not deterministic, its samples depend on each other, or it cannot be evaluated.
    """
    cases = cases_of(network, captured, tensors)
    evidence = answer(network, cases, captured.outputs, [channel_axis(captured, port) for port in captured.outputs])
    if captured.batched and len(evidence.golden.inputs) > 1:
        _require_independent_samples(network, evidence)
    return evidence


def answer(
    network: FlatNetwork,
    cases: Sequence[Tensors],
    outputs: Sequence[Port],
    axes: Sequence[int | None],
    keep_all: bool = False,
) -> Evidence:
    """Evaluate the network in float64 and in its own type.

    Args:
        outputs, axes: type of each output, and the axis of its channels.
        keep_all: keep also cases in which the network crosses a threshold in one type and not in the other.

    Raises:
        ExportError: two evaluations differ, or an output is not a number.
    """
    reference = Reference(network)
    exact = [_rounded(reference(case), outputs) for case in cases]
    own = _own(network, cases)
    if not all(map(_equal, own[0], _own(network, cases[:1])[0])):
        raise ExportError(
            f"{type(network.model).__name__}: two evaluations of one input differ in eval mode; remove random numbers "
            "and state from forward"
        )
    _require_meaning(network, own, exact, outputs)
    if outputs[0].type == "float64":
        own = _float64_rounding(network, cases, exact)
        with quiet(), torch.backends.mkldnn.flags(enabled=False):
            variants = [_float64_rounding(network, cases, exact)]
    else:
        variants = _variants(network, reference, cases, outputs, perturb=not keep_all)
    kept = [True] * len(cases) if keep_all else _continuous(own, exact)
    numbers = [number for number, keep in enumerate(kept) if keep]
    compared = [(own[number], exact[number]) for number in numbers]
    for variant in variants:
        more = [(variant[number], exact[number]) for number in numbers]
        compared += [pair for pair, same in zip(more, _continuous(*zip(*more, strict=True)), strict=True) if same]
    yardsticks = [
        _yardstick(port, axis, [a[place] for a, _ in compared], [b[place] for _, b in compared])
        for place, (port, axis) in enumerate(zip(outputs, axes, strict=True))
    ]
    inputs = [[as_array(tensor) for tensor in cases[number]] for number in numbers]
    return Evidence(Golden(inputs, [exact[number] for number in numbers]), yardsticks)


def _require_meaning(
    network: FlatNetwork, own: Sequence[Arrays], exact: Sequence[Arrays], outputs: Sequence[Port]
) -> None:
    """Where a network's rounding is as large as its answers, no file could be told to be wrong."""
    error = float(np.median([_relative(a, b) for a, b in zip(own, exact, strict=True)]))
    if error > MEANINGLESS and outputs[0].type in ("float32", "float64"):
        raise ExportError(
            f"{type(network.model).__name__}: its answers in {outputs[0].type} and in float64 differ by {error:.0%} of "
            "the largest, so that a file cannot be compared with it; check the scale of weights and inputs, or what it "
            "keeps besides parameters and buffers"
        )


def _own(network: FlatNetwork, cases: Sequence[Tensors]) -> list[Arrays]:
    return [[as_array(output) for output in evaluated(network, case)] for case in cases]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _variants(
    network: FlatNetwork, reference: Reference, cases: Sequence[Tensors], outputs: Sequence[Port], perturb: bool
) -> list[list[Arrays]]:
    """Answers that are rounded otherwise: with other algorithms; and, to `perturb`, with the parameters moved."""
    found = []
    if len(cases) > FEW:
        with quiet(), torch.backends.mkldnn.flags(enabled=False):
            found.append(_own(network, cases))
    for seed in range(DRAWS if len(cases) > FEW else 1) if perturb else ():
        perturbed = reference.rounded(seed)
        found.append([_rounded(perturbed(case), outputs) for case in cases])
    return found


def _yardstick(port: Port, axis: int | None, own: list[np.ndarray], exact: list[np.ndarray]) -> Yardstick:
    if not any(array.size for array in exact):
        raise ExportError(f"output {port.name}: empty for this example; pass one for which there are values")
    try:
        return measured(port.type, axis, own, exact)
    except ValueError as error:
        raise ExportError(f"output {port.name}: {error}; scale the inputs or the weights") from error


def _rounded(outputs: Sequence[Tensor], ports: Sequence[Port]) -> Arrays:
    """float64 values in each output's own type."""
    result = []
    for output, port in zip(outputs, ports, strict=True):
        kind = getattr(torch, port.type)
        result.append(as_array(output.to(torch.float32 if kind == torch.bfloat16 else kind)))
    return result


def _float64_rounding(network: FlatNetwork, cases: Sequence[Tensors], exact: list[Arrays]) -> list[Arrays]:
    """Of a float64 network: its rounding in float32, scaled down, since there is nothing more exact to compare with."""
    single = FlatNetwork(detached_copy(network.model).float(), network.arguments)
    result = []
    for case, answers in zip(cases, exact, strict=True):
        narrow = [tensor.float() if tensor.dtype == torch.float64 else tensor for tensor in case]
        try:
            rounded = [as_array(output) for output in evaluated(single, narrow)]
        except ExportError:
            rounded = answers
        result.append(
            [
                want + (got - want) * FLOAT64_ROUNDING if want.dtype == np.float64 and np.isfinite(got).all() else want
                for got, want in zip(rounded, answers, strict=True)
            ]
        )
    return result


def _continuous(own: Sequence[Arrays], exact: Sequence[Arrays]) -> list[bool]:
    """Cases in which the network's own answers are rounded, not others; all where most are not."""
    errors = np.array([_relative(a, b) for a, b in zip(own, exact, strict=True)])
    kept = (errors <= DISCONTINUOUS) | (errors <= 1000 * np.median(errors))
    return kept.tolist() if 2 * kept.sum() > len(kept) else [True] * len(kept)


def _relative(own: Arrays, exact: Arrays) -> float:
    found = [0.0]
    for a, b in zip(own, exact, strict=True):
        if str(b.dtype) in UNIT_ROUNDOFF and a.shape == b.shape and b.size:
            finite = np.isfinite(a) & np.isfinite(b)
            size = np.abs(b[finite]).max(initial=0.0)
            found.append(float(np.abs(a[finite] - b[finite]).max(initial=0.0) / size) if size else 0.0)
    return max(found)


def _require_independent_samples(network: FlatNetwork, evidence: Evidence) -> None:
    cases = of_one_size(evidence.golden)
    together = [
        torch.from_numpy(np.concatenate(arrays)).to(tensor.dtype)
        for arrays, tensor in zip(zip(*cases.inputs, strict=True), network.arguments.tensors, strict=True)
    ]
    (batch,) = _own(network, [together])
    for place, yardstick in enumerate(evidence.yardsticks):
        expected = np.concatenate([case[place] for case in cases.outputs])
        verdict = judge(yardstick, [batch[place]], [expected])
        if not verdict.passed and verdict.share > 1000:
            raise ExportError(
                f"{type(network.model).__name__}: a sample's output depends on the rest of its batch (by "
                f"{verdict.difference:.1e}); use running statistics in eval mode, or export one batch size with "
                "dynamic=False"
            )


def channel_axis(captured: Captured, port: Port) -> int | None:
    """Axis 1 of (N, C, …), the only one of (C,); None where its size varies."""
    axis = 1 if len(port.shape) > 1 else 0
    return axis if len(port.shape) > axis and isinstance(port.shape[axis], int) else None


# ---- the cases


def cases_of(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> list[Tensors]:
    """Single samples where the network takes batches of any size, else the whole example; mixtures; other sizes."""
    wanted = golden.CASES
    if sum(tensor.numel() // (len(tensor) if tensor.dim() else 1) for tensor in tensors) > LARGE:
        axes = [(port, channel_axis(captured, port)) for port in captured.outputs]
        channels = [port.shape[axis] for port, axis in axes if axis is not None]
        wanted = FEW if len(channels) == len(axes) and all(int(size) >= MANY for size in channels) else MIXED
    if captured.batched:
        unit = _smallest_batch(network, captured, tensors)
        count = len(tensors[0]) // unit
        cases = [[_slice(tensor, i * unit, unit) for tensor in tensors] for i in range(min(count, wanted))]
        if not cases:
            cases = [[torch.cat([tensor] * unit)[:unit] for tensor in tensors]]
    else:
        cases = [list(tensors)]
    first = len(cases)
    if captured.batched and not all(_runs(network, captured, case) for case in cases):
        raise OneSize("dynamic: the network raises for parts of the example")
    for step in range(max(0, min(MIXED, wanted) - first)):
        cases.append(_mixture(cases[step % first], cases[(step + 1) % first], step))
    return cases + _other_sizes(network, captured, cases[0])


def _slice(tensor: Tensor, start: int, count: int) -> Tensor:
    return tensor[start : start + count].contiguous()


def _smallest_batch(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> int:
    """1, or 2 where the network drops a batch axis of size 1.

    Raises:
        OneSize: the network takes no part of the example.
    """
    ranks = [len(port.shape) for port in captured.outputs]
    for unit in (1, 2):
        part = [torch.cat([tensor] * unit)[:unit] for tensor in tensors]
        with suppress(ExportError):
            outputs = evaluated(network, part)
            if [output.dim() for output in outputs] == ranks and all(len(output) == unit for output in outputs):
                return unit
    raise OneSize("dynamic: the network takes no single sample of the example")


def _mixture(one: Tensors, other: Tensors, step: int) -> Tensors:
    """Between two cases, or between a case and itself turned along its last axis: within the range of the inputs."""
    share = (0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875, 0.4375)[step % 8]
    result = []
    for a, b in zip(one, other, strict=True):
        if not a.is_floating_point():
            result.append(a)
            continue
        if a is b and a.dim():
            b = a.roll(step + 1, -1)
        result.append((a * share + b * (1 - share)).to(a.dtype))
    return result


def _other_sizes(network: FlatNetwork, captured: Captured, case: Tensors) -> list[Tensors]:
    """The same case at two other sizes of every dynamic axis but the batch's."""
    labels: dict[str, int] = {}
    for chosen, tensor in zip(captured.axes, case, strict=True):
        for axis, label in chosen.items():
            if not (captured.batched and axis == 0):
                labels.setdefault(label, tensor.shape[axis])
    found: list[Tensors] = []
    for label, size in labels.items():
        sizes = [size * 2, size + 32, size + 8, size + 1, max(2, size // 2), size * 3]
        found += _accepted(network, captured, case, label, size, sizes)
    if len(labels) > 1:  # all of them at once
        larger = case
        for label, size in labels.items():
            larger = grown(captured.axes, larger, label, size, size * 2)
        if _runs(network, captured, larger):
            found.append(larger)
    return found


def _accepted(
    network: FlatNetwork, captured: Captured, case: Tensors, label: str, size: int, sizes: Sequence[int]
) -> list[Tensors]:
    found: list[Tensors] = []
    for other in sizes:
        resized = grown(captured.axes, case, label, size, other)
        if len(found) < 2 and other != size and _runs(network, captured, resized):
            found.append(resized)
    if not found:
        raise OneSize(f"dynamic: the network raises for every other size of {label} than {size}; leave it fixed")
    return found


def grown(axes: Sequence[Axes], case: Tensors, label: str, size: int, other: int) -> Tensors:
    """The case with its axes `label` repeated or cut to another size."""
    result = []
    for chosen, tensor in zip(axes, case, strict=True):
        for axis, name in chosen.items():
            if name == label and tensor.shape[axis] == size:
                index = torch.arange(other) % size
                tensor = tensor.index_select(axis, index)
        result.append(tensor)
    return result


def _runs(network: FlatNetwork, captured: Captured, case: Tensors) -> bool:
    try:
        outputs = evaluated(network, case)
    except ExportError:
        return False
    return [output.dim() for output in outputs] == [len(port.shape) for port in captured.outputs]
