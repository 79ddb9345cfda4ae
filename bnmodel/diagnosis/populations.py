"""Layers that are called several times per pass, with inputs of different statistics."""

import math
from collections import defaultdict

import numpy as np
from torch import Tensor

from bnmodel.diagnosis.batches import mixed
from bnmodel.diagnosis.batchnorms import running_statistics
from bnmodel.diagnosis.deviation import deviation
from bnmodel.diagnosis.examination import MIXED_BATCH, MIXED_SAMPLES, Examination, per_layer
from bnmodel.diagnosis.moments import batch_moments
from bnmodel.diagnosis.observing import Part, Substitute, pooled, run
from bnmodel.diagnosis.outcome import Gain
from bnmodel.findings import SEVERITIES, Finding

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
        gain, rather = _gain(examination, name) if running_statistics(norm) is not None else (None, "")
        findings.append(
            Finding(
                "several-populations",
                "note" if gain is None else gain.severity,
                name,
                f"called {len(calls)} times per pass with inputs up to {farthest.distance:.2f} σ and a variance ratio "
                f"of {math.exp(farthest.log_ratio):.3g} apart; one running mean cannot fit them"
                + ("" if gain is None else f" (with statistics per call{rather}: {gain})"),
                f"norms = nn.ModuleList(copy.deepcopy(model.get_submodule({name!r})) for _ in range({len(calls)}))"
                "  # one per call, then train on; or join the inputs in one batch",
            )
        )
    return findings


def _gain(examination: Examination, layer: str) -> tuple[Gain | None, str]:
    """Gain with statistics per call, over eval mode or over one recalibrated average, whichever is less serious.

    If the average does as well, the statistics are stale.
    """
    per_call = _per_call(layer, _statistics_per_call(examination, layer))
    gain = examination.repaired(per_call)
    if gain is None or gain.severity == "note" or not examination.deviations[layer].material:
        return gain, ""
    average = examination.scores_with(per_layer({layer: examination.population(layer)}))
    over = examination.repaired(per_call, before=average)
    if over is None or SEVERITIES.index(over.severity) <= SEVERITIES.index(gain.severity):
        return gain, ""
    return over, " instead of their recalibrated average"


def _statistics_per_call(examination: Examination, layer: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and variance of the layer's input in each call, with those statistics in its earlier calls.

    In eval mode, a call that follows another one of the same layer, as in a recurrent step, has a distorted input.
    """
    batches = mixed(examination.batches, MIXED_BATCH, MIXED_SAMPLES) if examination.forward is None else None
    if batches is None and examination.batches_mislead():
        return [(each.mean, each.var) for each in examination.seen.by_call[layer]]
    parts: defaultdict[int, list[Part]] = defaultdict(list)

    def substitute(name: str, index: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        if name != layer or not x.numel():
            return None
        mean, var = batch_moments(x, examination.seen.centres.get(name))
        parts[index].append((mean, var, x.numel() // x.size(1)))
        return mean, var

    for _ in run(examination.model, examination.norms, batches or examination.batches, examination.forward, substitute):
        pass
    return [pooled(parts[index]) for index in sorted(parts)]


def _per_call(layer: str, calls: list[tuple[np.ndarray, np.ndarray]]) -> Substitute:
    return lambda name, index, _: calls[index] if name == layer and index < len(calls) else None
