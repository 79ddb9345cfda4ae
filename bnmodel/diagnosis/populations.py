"""Layers that are called several times per pass, with inputs of different statistics."""

import math

import numpy as np
from torch import Tensor

from bnmodel.diagnosis.batchnorms import running_statistics
from bnmodel.diagnosis.deviation import deviation
from bnmodel.diagnosis.examination import Examination
from bnmodel.diagnosis.moments import Statistics
from bnmodel.diagnosis.observing import Substitute
from bnmodel.findings import Finding

SEVERAL = 0.5  # distance between the calls of a layer, in standard deviations or e-folds of variance


def several_populations(examination: Examination) -> list[Finding]:
    """A finding per such layer; its severity follows from the gain with separate statistics per call."""
    findings = []
    for name, calls in examination.seen.by_call.items():
        norm = examination.norms[name]
        first = calls[0]
        apart = [deviation(first.mean, first.var, norm.eps, other, len(examination.norms)) for other in calls[1:]]
        farthest = max(apart, key=lambda each: each.size)
        if not farthest.certain or farthest.size < SEVERAL:
            continue
        gain = examination.repaired(_per_call(name, calls)) if running_statistics(norm) is not None else None
        findings.append(
            Finding(
                "several-populations",
                "note" if gain is None else gain.severity,
                name,
                f"called {len(calls)} times per pass with inputs up to {farthest.distance:.2f} σ and a variance ratio "
                f"of {math.exp(farthest.log_ratio):.3g} apart; one running mean cannot fit them"
                + ("" if gain is None else f" (with statistics per call: {gain})"),
                f"norms = nn.ModuleList(copy.deepcopy(model.get_submodule({name!r})) for _ in range({len(calls)}))"
                "  # one per call, then train on; or join the inputs in one batch",
            )
        )
    return findings


def _per_call(layer: str, calls: list[Statistics]) -> Substitute:
    def substitute(name: str, index: int, _: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
        return (calls[index].mean, calls[index].var) if name == layer and index < len(calls) else None

    return substitute
