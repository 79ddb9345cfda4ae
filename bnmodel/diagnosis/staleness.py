"""Stale statistics: the layer where they begin, their cause, and their effect on the outputs."""

import math
from dataclasses import dataclass, field

import numpy as np

from bnmodel.diagnosis import state
from bnmodel.diagnosis.batchnorms import amplification, batches_tracked, initial_weight, running_statistics
from bnmodel.diagnosis.deviation import LARGE_MOMENTUM, MATERIAL, NOTEWORTHY, OWN, Deviation, cause, momentum_noise
from bnmodel.diagnosis.examination import Examination, per_layer
from bnmodel.diagnosis.moments import array
from bnmodel.diagnosis.observing import HIGH_AMPLIFICATION
from bnmodel.diagnosis.outcome import ERROR, WARNING, Gain, worst
from bnmodel.diagnosis.train_mode import FITS_IN_TRAIN_MODE, fits_in_train_mode
from bnmodel.findings import Finding, Severity

FEW = 100  # samples below which only a large deviation is judged by changed predictions


@dataclass(frozen=True)
class Staleness:
    """Result of `staleness`.

    Attributes:
        gain: of the outputs if the layers are repaired, or None.
        consequences: layer → the earlier layer that causes its deviation.
    """

    findings: list[Finding] = field(default_factory=list)
    gain: Gain | None = None
    consequences: dict[str, str] = field(default_factory=dict)


def staleness(
    examination: Examination, excluded: set[str], definite: set[str], fits_reference: dict[str, Deviation]
) -> Staleness:
    """Find the first layer whose running statistics differ from those of its input, and its consequences.

    Args:
        examination: with both passes measured.
        excluded: layers with another finding that explains a deviation.
        definite: those of them whose running statistics are certainly wrong.
        fits_reference: each layer's deviation from the reference batches.
    """
    suspicious = _suspicious(examination, excluded, definite)
    if not suspicious:
        return Staleness(_noisy(examination, excluded))
    primary, gain = _primary(examination, suspicious, definite)
    found = examination.deviations[primary]
    size = max(found.size, *(_own_size(examination, name) for name in suspicious))
    severity = _severity(size, gain, sum(batch.samples for batch in examination.batches))
    if severity == "note" and found.size < NOTEWORTHY and (gain is None or gain.severity == "note"):
        noteworthy = [name for name in suspicious if examination.deviations[name].size >= NOTEWORTHY]
        if not noteworthy:
            return Staleness(_noisy(examination, excluded), gain)
        primary = noteworthy[0]
        found = examination.deviations[primary]
    code = _code(examination, primary, fits_reference)
    if code == "different-data" and severity == "note" and examination.in_eval.accuracy_lost(examination.in_reference):
        severity = "warning"
    after_primary = suspicious[suspicious.index(primary) + 1 :]
    consequences = {name: primary for name in after_primary}
    if severity != "note" and code != "different-data" and gain is not None:
        exploding = _amplified_alone(examination, primary, gain)
        if exploding is not None:
            return Staleness([exploding], gain, consequences)
    findings = [_finding(examination, primary, code, severity, gain)]
    for name in after_primary if severity != "note" else ():
        own = examination.own.get(name)
        if own is not None and own.certain and own.size >= OWN:
            other = _code(examination, name, fits_reference)
            findings.append(_finding(examination, name, other, "note", None, primary))
    return Staleness(findings, gain, consequences)


def _suspicious(examination: Examination, excluded: set[str], definite: set[str]) -> list[str]:
    """Layers with a material deviation, in the order of their first call."""
    names = [
        name
        for name in examination.seen.order
        if name not in excluded and name in examination.deviations and examination.deviations[name].material
    ]
    if names and examination.batches_mislead():
        examination.pool_mixed()
    if not definite:
        return names
    after = min(map(examination.position, definite))  # later layers get other inputs than in training
    return [
        name
        for name in names
        if examination.position(name) < after or (name in examination.own and examination.own[name].size >= OWN)
    ]


def _primary(examination: Examination, suspicious: list[str], definite: set[str]) -> tuple[str, Gain | None]:
    """The layer where the deviation begins, and the gain of repairing it or all layers, whichever is more serious.

    The layer alone is repaired if it is the only one, if another layer deviates far more, or if repairing all gains
    nothing though its own deviation is large: later layers may have been trained with their present statistics.
    """
    primary = _where_it_begins(examination, suspicious)
    joint = _joint(examination, suspicious, definite)
    if joint is None:
        return primary, examination.repaired_alone(primary)

    largest = max(suspicious, key=lambda name: _own_size(examination, name))
    if largest == primary or _own_size(examination, largest) < 2 * _own_size(examination, primary):
        if joint.severity != "note" or examination.deviations[primary].size < OWN:
            return primary, joint
        single = examination.repaired_alone(primary)
        return primary, worst([gain for gain in (single, joint) if gain is not None])
    half = joint.value / 2
    gains = {}
    for name in (primary, largest):
        single = examination.repaired_alone(name, half)
        if single is not None:
            gains[name] = single
            if joint.severity == "note" or single.value >= half:
                break
    explains = largest if largest in gains and gains[largest].value >= half else primary
    return explains, worst([*(gains[name] for name in (explains,) if name in gains), joint])


def _own_size(examination: Examination, name: str) -> float:
    """Size of a layer's deviation, without that which the layers before it cause."""
    return examination.own[name].size if name in examination.own else 0.0


def _joint(examination: Examination, suspicious: list[str], definite: set[str]) -> Gain | None:
    """Gain of repairing all layers together; None if it is only one."""
    if len(suspicious) < 2 or not examination.pooled:
        return None
    gains = examination.in_train.gains_over(examination.in_eval)
    only_answers = all(gain.kind == "answers" for gain in gains)
    if only_answers and not definite and examination.batch_statistics_gain_nothing():
        return worst(gains)  # the same statistics without the noise of a batch change no more answers
    first = examination.seen.order[0]
    everything = {
        name: examination.repair(name, alone=name != first)
        for name in (*examination.pooled, first)
        if name not in definite or name == first
    }
    return examination.repaired(per_layer(everything))


def _where_it_begins(examination: Examination, suspicious: list[str]) -> str:
    """The first layer that deviates by a large part of the largest deviation of a layer's own."""
    own = {
        name: examination.own[name].size if name in examination.own else examination.deviations[name].size
        for name in suspicious
    }
    own[suspicious[0]] = max(own[suspicious[0]], examination.deviations[suspicious[0]].size)
    enough = min(OWN, max(own.values()) / 2)
    return next(name for name in suspicious if own[name] >= enough)


def _severity(size: float, gain: Gain | None, samples: int) -> Severity:
    """By the gain; for deviations as small as the lag of a steady training only as far as that is proven."""
    if gain is None:
        return "warning" if size >= 1 else "note"
    if gain.kind != "answers" and gain.lower > ERROR[gain.kind]:
        return gain.severity
    unsure = gain.kind == "answers" and samples < FEW
    if size >= (OWN if unsure else NOTEWORTHY):
        return gain.severity
    return "warning" if gain.kind != "answers" and gain.lower > WARNING[gain.kind] else "note"


def _amplified_alone(examination: Examination, name: str, gain: Gain) -> Finding | None:
    """`exploding-channels` if repairing a layer's few strongly amplified channels gives at least half of `gain`."""
    norm = examination.norms[name]
    running, strength = running_statistics(norm), amplification(norm)
    amplified = strength > HIGH_AMPLIFICATION
    if running is None or not bool(amplified.any()) or float(amplified.float().mean()) > 0.5:
        return None
    repaired = amplified.cpu().numpy()
    mean, var = (
        np.where(repaired, expected, array(own))
        for expected, own in zip(examination.population(name), running, strict=True)
    )
    alone = examination.repaired(per_layer({name: (mean, var)}), gain.value / 2)
    if alone is None or alone.value < gain.value / 2:
        return None
    return state.exploding_now(name, norm, amplified, examination.seen.peaks.get(name, 0.0), alone)


def _noisy(examination: Examination, excluded: set[str]) -> list[Finding]:
    """A note for the layer with the noisiest average, if its statistics are good enough now."""
    noise = {
        name: momentum_noise(examination.norms[name], examination.expected[name], examination.batch)[0]
        for name in examination.deviations
        if name not in excluded and (examination.norms[name].momentum or 0.0) >= LARGE_MOMENTUM
    }
    worst_layer = max(noise, key=lambda name: noise[name], default=None)
    if worst_layer is None or noise[worst_layer] < MATERIAL:
        return []
    return [_finding(examination, worst_layer, "noisy-statistics", "note", None)]


def _code(examination: Examination, name: str, fits_reference: dict[str, Deviation]) -> str:
    found = examination.deviations[name]
    if name in fits_reference and fits_reference[name].size < 0.5 * found.size:
        return "different-data"
    return cause(examination.norms[name], examination.expected[name], found, examination.batch)


def _finding(
    examination: Examination, name: str, code: str, severity: Severity, gain: Gain | None, follows: str = ""
) -> Finding:
    norm, found = examination.norms[name], examination.deviations[name]
    seen = batches_tracked(norm)
    measured = (
        f"running mean is {_plain(found.distance)} σ from that of the layer's input "
        f"(at most {_plain(found.largest)} σ), running variance off by a factor of {math.exp(found.log_ratio):.3g}"
    )
    momentum = "cumulative average" if norm.momentum is None else f"momentum {norm.momentum:g}"
    noise, _ = momentum_noise(norm, examination.expected[name], examination.batch)
    if norm.momentum is None:
        averaged = float(seen or 1)
    else:
        averaged = (2 - norm.momentum) / norm.momentum if norm.momentum else float("inf")
    remaining = f"{100 * initial_weight(norm):.3g}% of the initial values remain"
    explained = f"{momentum} after {seen} batches explains {noise:.2f} σ"
    shifted = code == "stale-statistics" and not follows and fits_in_train_mode(examination, name)
    why = {
        "stale-statistics": FITS_IN_TRAIN_MODE if shifted else explained,
        "different-data": "they fit the reference batches: these are different data",
        "noisy-statistics": f"{momentum} averages {averaged:.3g} batches",
        "unconverged-average": f"{momentum}, {seen} batches: {remaining}",
    }[code]
    remedy = {
        "stale-statistics": state.RECALIBRATE + ("  # or move dropout behind the last batch norm" if shifted else ""),
        "different-data": "model = bnmodel.recalibrate(model, batches)  # adapts it; or preprocess as in training",
        "noisy-statistics": f"{state.RECALIBRATE}  # in training: momentum=0.1 or larger batches",
        "unconverged-average": f"{state.RECALIBRATE}  # in training: a larger momentum (0.1) or more steps",
    }[code]
    if code == "different-data" and gain is not None and gain.kind != "answers" and gain.severity == "note":
        remedy = "x = preprocess_as_in_training(x)  # recalibrating on these batches would not help"
    elif gain is not None and gain.kind != "answers" and gain.upper < 0:
        remedy = f"model.get_submodule({name!r}).eval()  # keep the statistics: later layers were trained with them"
    lost = examination.in_eval.accuracy_lost(examination.in_reference) if code == "different-data" and gain else ""
    effect = (f"; {lost}" if lost else "") + ("" if gain is None else f"; repaired: {gain}")
    after = f"; begins at {follows}" if follows else ""
    return Finding(code, severity, name, f"{measured}; {why}{effect}{after}", remedy)


def _plain(number: float) -> str:
    return f"{number:.2f}" if number < 1000 else f"{number:.3g}"
