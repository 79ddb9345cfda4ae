"""Evaluate a network in float64 and in its own type: golden vectors and the rounding errors that files may have."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnmodel.deploy.allowance import UNIT_ROUNDOFF, Yardstick, judge, measured
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.cases import FEW, Tensors, cases_of
from bnmodel.deploy.checks import of_one_size
from bnmodel.deploy.copying import detached_copy
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.golden import Arrays, Golden
from bnmodel.deploy.loading import as_array
from bnmodel.deploy.reference import Reference, evaluated
from bnmodel.deploy.signature import FlatNetwork, Port
from bnmodel.deploy.summation import InSequence
from bnmodel.deploy.tracing import quiet

DRAWS = 4  # random roundings of the parameters
FLOAT64_ROUNDING = 2 * 2.0**-29  # relative to float32's, doubled since the reference is rounded too
DISCONTINUOUS = 1e-3  # relative error above which a case has crossed a threshold of the network
REPEATS = 64  # evaluations of a network that draws random numbers in Python, which may rarely have an effect
MEANINGLESS = 0.3  # median relative error above which a network is refused


@dataclass(frozen=True)
class Evidence:
    """Golden vectors, and the network's own rounding error on them, per output."""

    golden: Golden
    yardsticks: list[Yardstick]


def gather(network: FlatNetwork, captured: Captured, tensors: Sequence[Tensor]) -> Evidence:
    """`evaluate` on cases made from the example.

    Raises:
        ExportError: the network is not deterministic, its samples depend on each other, or it cannot be evaluated.
    """
    cases = cases_of(network, captured, tensors)
    evidence = evaluate(network, cases, captured.outputs, [port.channel_axis for port in captured.outputs])
    if captured.batched and len(evidence.golden.inputs) > 1:
        _require_independent_samples(network, evidence)
    return evidence


def evaluate(
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
    _require_deterministic(network, cases[0], own[0])
    _require_meaning(network, own, exact, outputs)
    if outputs[0].type == "float64" and not _rounds(own, exact):
        own = _float64_rounding(network, cases, exact)
        with quiet(), torch.backends.mkldnn.flags(enabled=False):
            variants = [_float64_rounding(network, cases, exact)]
    else:
        variants = _variants(network, reference, cases, outputs, perturb=not keep_all)
    kept = [number for number, same in enumerate(_continuous(own, exact)) if same or keep_all]
    own, exact, *variants = ([answers[number] for number in kept] for answers in (own, exact, *variants))
    pairs = list(zip(own, exact, strict=True))
    for variant in variants:
        same = _continuous(variant, exact)
        pairs += [pair for pair, keep in zip(zip(variant, exact, strict=True), same, strict=True) if keep]
    yardsticks = [
        _yardstick(port, axis, [a[index] for a, _ in pairs], [b[index] for _, b in pairs])
        for index, (port, axis) in enumerate(zip(outputs, axes, strict=True))
    ]
    inputs = [[as_array(tensor) for tensor in cases[number]] for number in kept]
    return Evidence(Golden(inputs, exact), yardsticks)


def _require_deterministic(network: FlatNetwork, case: Tensors, first: Arrays) -> None:
    before = _random_states()
    again = _own(network, [case])
    if _random_states() != before:  # the traced graph has one of its branches
        again += _own(network, [case] * REPEATS)
    pairs = [pair for second in again for pair in zip(first, second, strict=True)]
    if not all(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc") for a, b in pairs):
        raise ExportError(
            f"{type(network.model).__name__}: two evaluations of one input differ in eval mode; remove random numbers "
            "and state from forward"
        )


def _random_states() -> tuple[object, ...]:
    """States of Python's and NumPy's global generators; random numbers of torch are found in the graph."""
    numpy: Any = np.random.get_state()  # noqa: NPY002 – the state of legacy calls
    return random.getstate(), numpy[1].tobytes(), numpy[2]


def _require_meaning(
    network: FlatNetwork, own: Sequence[Arrays], exact: Sequence[Arrays], outputs: Sequence[Port]
) -> None:
    """No file can be compared with a network whose rounding errors are as large as its outputs."""
    error = float(np.median([_relative(a, b) for a, b in zip(own, exact, strict=True)]))
    if error > MEANINGLESS and outputs[0].type in ("float32", "float64"):
        raise ExportError(
            f"{type(network.model).__name__}: its answers in {outputs[0].type} and in float64 differ by {error:.0%} of "
            "the largest, so that a file cannot be compared with it; check the scale of weights and inputs, or what it "
            "keeps besides parameters and buffers"
        )


def _require_independent_samples(network: FlatNetwork, evidence: Evidence) -> None:
    cases = of_one_size(evidence.golden)
    together = [
        torch.from_numpy(np.concatenate(arrays)).to(tensor.dtype)
        for arrays, tensor in zip(zip(*cases.inputs, strict=True), network.arguments.tensors, strict=True)
    ]
    (batch,) = _own(network, [together])
    for index, yardstick in enumerate(evidence.yardsticks):
        expected = np.concatenate([case[index] for case in cases.outputs])
        verdict = judge(yardstick, [batch[index]], [expected])
        if not verdict.passed and verdict.share > 1000:
            raise ExportError(
                f"{type(network.model).__name__}: a sample's output depends on the rest of its batch (by "
                f"{verdict.difference:.1e}); use running statistics in eval mode; export one batch size with "
                "dynamic=False; or, if the first axis is a sequence, name it, as in dynamic={0: 'L', 1: 'N'}"
            )


def _own(network: FlatNetwork, cases: Sequence[Tensors]) -> list[Arrays]:
    """The network's outputs in its own type."""
    return [[as_array(output) for output in evaluated(network, case)] for case in cases]


def _variants(
    network: FlatNetwork, reference: Reference, cases: Sequence[Tensors], outputs: Sequence[Port], perturb: bool
) -> list[list[Arrays]]:
    """Outputs with other rounding errors: from other algorithms and, if `perturb`, from other sums and parameters."""
    found = []
    if len(cases) > FEW:
        with quiet(), torch.backends.mkldnn.flags(enabled=False):
            found.append(_own(network, cases))
    if perturb:
        with InSequence():  # type: ignore[no-untyped-call]
            found.append(_own(network, cases))
    for seed in range(DRAWS if len(cases) > FEW else 1) if perturb else ():
        perturbed = reference.rounded(seed)
        found.append([_rounded(perturbed(case), outputs) for case in cases])
    return found


def _yardstick(port: Port, axis: int | None, own: list[np.ndarray], exact: list[np.ndarray]) -> Yardstick:
    if not any(array.size for array in exact):
        raise ExportError(f"output {port.name}: empty for this example; pass one for which there are values")
    if not any(np.isfinite(array).any() for array in exact):
        raise ExportError(f"output {port.name}: no finite value for this example; pass typical inputs")
    try:
        return measured(port.type, axis, own, exact)
    except ValueError as error:
        raise ExportError(f"output {port.name}: {error}; scale the inputs or the weights") from error


def _rounded(outputs: Sequence[Tensor], ports: Sequence[Port]) -> Arrays:
    """float64 values in each output's own type."""
    result = []
    for output, port in zip(outputs, ports, strict=True):
        dtype = getattr(torch, port.type)
        result.append(as_array(output.to(torch.float32 if dtype == torch.bfloat16 else dtype)))
    return result


def _float64_rounding(network: FlatNetwork, cases: Sequence[Tensors], exact: list[Arrays]) -> list[Arrays]:
    """Outputs of a float64 network with its float32 rounding errors scaled down: there is no more exact reference."""
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


def _rounds(own: Sequence[Arrays], exact: Sequence[Arrays]) -> bool:
    """Whether a network with float64 outputs computes in a narrower type."""
    errors = [_relative(a, b) for a, b in zip(own, exact, strict=True)]
    return float(np.median(errors)) > UNIT_ROUNDOFF["float32"] / 1000


def _continuous(own: Sequence[Arrays], exact: Sequence[Arrays]) -> list[bool]:
    """Whether each case differs by rounding only; all True if most differ by more."""
    errors = np.array([_relative(a, b) for a, b in zip(own, exact, strict=True)])
    kept = (errors <= DISCONTINUOUS) | (errors <= 1000 * np.median(errors))
    return kept.tolist() if 2 * kept.sum() > len(kept) else [True] * len(kept)


def _relative(own: Arrays, exact: Arrays) -> float:
    """The largest difference of any output, relative to that output's largest value."""
    found = [0.0]
    for a, b in zip(own, exact, strict=True):
        if str(b.dtype) in UNIT_ROUNDOFF and a.shape == b.shape and b.size:
            finite = np.isfinite(a) & np.isfinite(b)
            size = np.abs(b[finite]).max(initial=0.0)
            found.append(float(np.abs(a[finite] - b[finite]).max(initial=0.0) / size) if size else 0.0)
    return max(found)
