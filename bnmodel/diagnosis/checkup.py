"""`diagnose`: the findings about a network's batch norms, their severity and remedies."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor, nn

from bnmodel.diagnosis import state
from bnmodel.diagnosis.batches import Batch, Forward, read_batches, require_functions, required_inputs
from bnmodel.diagnosis.batchnorms import amplification, batches_tracked, named_batch_norms
from bnmodel.diagnosis.borrowing import bare, borrowed, device_of, random_state_kept
from bnmodel.diagnosis.examination import Examination
from bnmodel.diagnosis.outcome import disagreement
from bnmodel.diagnosis.populations import several_populations
from bnmodel.diagnosis.report import LayerRecord, Report
from bnmodel.diagnosis.scoring import Loss
from bnmodel.diagnosis.staleness import staleness
from bnmodel.diagnosis.tiny_batches import tiny_batches, training_mode
from bnmodel.findings import SEVERITIES, Finding


def diagnose(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    reference: Iterable[Any] | None = None,
    loss: Loss | None = None,
    forward: Forward | None = None,
) -> Report:
    """Check every batch norm of `model` on `batches`; the model is left exactly as it was.

    Running statistics are tested against the population with standard errors that treat samples, not values, as
    independent; the test accounts for all channels and layers. Severity follows from the outputs: the layer gets the
    statistics of its input, alone and together with the others. A gain of at least 5 points of accuracy (20% of the
    loss; without targets, 10% of the predictions changed) is an error, at least 1 point (4%; 3%) a warning, if the
    99% interval excludes chance (docs/diagnosis.md).

    It takes two to three times as long as an evaluation of the batches.

    Args:
        model: any module with torch's batch norms, bnmodel's, or subclasses of either.
        batches: an iterable of inputs, or of (inputs, targets). Dicts are passed by keyword, tuples of inputs by
            position. A few hundred samples suffice; all batches are held in memory.
        reference: batches of training data in the same form, to distinguish different data from stale statistics.
        loss: loss(outputs, targets) → scalar. Default: cross-entropy for classes, mean squared error for values.
        forward: forward(model, batch) → outputs, for models that take other arguments.

    Returns:
        The findings, a record per layer, and the outcome in both modes.

    Raises:
        TypeError: `model` is no module, or `loss` or `forward` no function.
        ValueError: no batches, batches of an unknown form, a lazy module, or a model on the meta device. Exceptions of
            the model's forward are passed on, after the model has been restored.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, received {type(model).__name__}")
    require_functions(loss=loss, forward=forward)
    inner = bare(model)
    device = device_of(inner)
    norms = named_batch_norms(model)
    wanted = None if forward is not None else required_inputs(inner)
    with random_state_kept():  # data loaders draw from it
        given = read_batches(batches, device, wanted, "batches")
        compared = None if reference is None else read_batches(reference, device, wanted, "reference")
    modes = {name: norm.training for name, norm in norms.items()}
    batch = int(median(each.samples for each in given))
    examination = Examination(inner, norms, given, forward, loss, modes, model.training, batch)
    with borrowed(inner), np.errstate(all="ignore"):  # invalid statistics become findings
        return _examine(examination, compared)


def _examine(examination: Examination, reference: list[Batch] | None) -> Report:
    examination.measure()
    _warn_of_unused_parts(examination)
    fits_reference = {} if reference is None else examination.deviations_from(reference)
    findings = _state_findings(examination)
    definite = {finding.layer for finding in findings if finding.severity == "error" and finding.code != "mixed-modes"}
    several = several_populations(examination)
    excluded = definite | {finding.layer for finding in several if finding.severity != "note"}
    stale = staleness(examination, excluded, definite, fits_reference)
    exploding = {finding.layer for finding in stale.findings if finding.code == "exploding-channels"}
    findings = [f for f in findings if not (f.code == "exploding-channels" and f.layer in exploding)]
    findings += several + stale.findings
    tiny = tiny_batches(examination, explained=any(finding.severity != "note" for finding in findings))
    training = training_mode(examination) if tiny is None or tiny.severity == "note" else None
    findings += [finding for finding in (tiny, training) if finding is not None]
    if examination.forward is not None:
        own = state.RECALIBRATE.replace(")", ", forward=forward)")
        findings = [replace(f, remedy=f.remedy.replace(state.RECALIBRATE, own)) for f in findings]
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), examination.position(f.layer)))
    order = examination.seen.order
    total = sum(own.size**2 for own in examination.own.values())
    shares = {name: own.size**2 / total for name, own in examination.own.items()} if total else {}
    return Report(
        tuple(findings),
        tuple(
            _record(examination, name, shares, stale.consequences.get(name, ""))
            for name in (*order, *(name for name in examination.norms if name not in order))
        ),
        examination.in_eval.outcome(),
        examination.in_train.outcome() if examination.in_train.heads else None,
        disagreement(examination.in_eval, examination.in_train),
        stale.gain,
        sum(batch.samples for batch in examination.batches),
    )


def _warn_of_unused_parts(examination: Examination) -> None:
    """Warn of outputs, targets or a loss by which the passes could not be compared."""
    targets = examination.batches[0].targets
    if examination.loss is not None and targets is None:
        _warn("loss: not used, since the batches have no targets; pass (inputs, targets)")
    if not any(examination.in_eval.heads.values()):
        _warn(
            "outputs: expected a tensor with a row per sample, received none, so that the effect of findings is not "
            "measured; return it from the model's forward, or pass forward=lambda model, batch: ..."
        )
    elif examination.embeddings:
        _warn(
            "targets: the outputs do not predict these classes in any mode, so that their values are compared without "
            "targets, as embeddings; if they are scores of classes, check the order of the targets, or pass loss="
        )
    elif _targets_fit_nothing(examination):
        array = isinstance(targets, (Tensor, np.ndarray))
        kind = f"{targets.dtype} {list(targets.shape)}" if array else type(targets).__name__
        _warn(
            f"targets: expected int64 classes, or values of the outputs' shape, received {kind}, which fit no output; "
            "predictions are compared without targets; convert them, or pass loss="
        )


def _targets_fit_nothing(examination: Examination) -> bool:
    targets, outcome = examination.batches[0].targets, examination.in_eval.outcome()
    plain = isinstance(targets, (Tensor, np.ndarray)) or (
        isinstance(targets, list) and all(isinstance(each, (int, float, str)) for each in targets)
    )
    inputs = examination.batches[0].inputs
    if examination.forward is not None and isinstance(inputs, (tuple, list)):
        inputs = inputs[0]
    if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and inputs.shape == targets.shape:
        return False  # real and generated images, rather than inputs and targets
    return plain and outcome.loss is None and outcome.accuracy is None


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # of the call of `diagnose`


def _state_findings(examination: Examination) -> list[Finding]:
    """Findings that follow from the state of each layer that was called."""
    findings: list[Finding | None] = []
    for name, norm in examination.called().items():
        own = state.batch_statistics(name, norm, name in examination.seen.dependent)
        own = own or state.invalid(name, norm, examination.model) or state.never_updated(name, norm)
        findings.append(own)
        findings.append(state.dead(name, norm, examination.dead[name], name in examination.seen.features))
        if own is None:
            findings.append(state.exploding(name, norm, examination.seen.peaks.get(name)))
    if not any(finding and finding.code == "invalid-statistics" for finding in findings):
        findings.append(state.invalid_input(examination.seen.whole, examination.seen.order))
    findings += map(state.functional, examination.seen.functional)
    findings.append(state.mixed_modes(examination.called(), examination.modes, examination.root_training))
    return [finding for finding in findings if finding is not None]


def _record(examination: Examination, name: str, shares: dict[str, float], consequence_of: str) -> LayerRecord:
    norm, seen, found = examination.norms[name], name in examination.seen, examination.deviations.get(name)
    strength = None if found is None else float(amplification(norm).max())
    if seen and not np.isfinite(np.add(*examination.population(name))).any():
        found = None  # no channel could be compared
    return LayerRecord(
        name=name,
        kind=type(norm).__name__,
        channels=norm.num_features,
        calls=examination.seen.calls.get(name, 0),
        training=examination.modes[name],
        momentum=norm.momentum,
        batches=batches_tracked(norm),
        distance=None if found is None else found.distance,
        largest_distance=None if found is None else found.largest,
        variance_ratio=None if found is None else math.exp(found.mean_log_ratio),
        log_variance_ratio=None if found is None else found.log_ratio,
        certain=found is not None and found.certain,
        batch_noise=examination.batch_noise(name) if seen else None,
        values_per_batch=examination.seen.values.get(name) if seen else None,
        dead_channels=int(examination.dead[name].sum()) if seen else 0,
        amplification=strength,
        share=shares.get(name),
        consequence_of=consequence_of,
    )
