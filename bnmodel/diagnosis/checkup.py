"""`diagnose`: which of a network's batch norms are wrong, how far that matters, and what to do."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bnmodel.diagnosis import state
from bnmodel.diagnosis.batches import Batch, Forward, mixed, read_batches
from bnmodel.diagnosis.batchnorms import Norm, batches_tracked, initial_weight, named_batch_norms, running_statistics
from bnmodel.diagnosis.deviation import (
    NOTEWORTHY,
    OWN,
    Deviation,
    cause,
    deviation,
    expected_in_training,
    momentum_noise,
)
from bnmodel.diagnosis.moments import Statistics
from bnmodel.diagnosis.observing import (
    HIGH_AMPLIFICATION,
    Observed,
    Pooled,
    Substitute,
    amplification,
    bare,
    borrowed,
    device_of,
    observe,
    run,
    run_with_batch_statistics,
)
from bnmodel.diagnosis.outcome import Gain, Loss, Scores, changed, score
from bnmodel.diagnosis.report import LayerRecord, Report
from bnmodel.findings import SEVERITIES, Finding, Severity

TINY = 12  # effective values per channel below which batch statistics are a lottery: noise of 0.3 σ
SEVERAL = 0.5  # distance between the calls of a layer, in standard deviations or e-folds of variance
MIXED_BATCH, MIXED_SAMPLES = 64, 256  # batches made where the given ones mislead
LEAST_COMPARED = 16  # samples before a comparison may stop early


@dataclass
class Checkup:
    """What is known so far, shared by the rules. Layers are named as in the model that was handed in."""

    model: nn.Module
    norms: dict[str, Norm]
    batches: list[Batch]
    forward: Forward | None
    loss: Loss | None
    modes: dict[str, bool]
    root_training: bool
    seen: Observed = field(default_factory=Observed)
    expected: dict[str, Statistics] = field(default_factory=dict)  # what the running statistics should be
    deviations: dict[str, Deviation] = field(default_factory=dict)  # in eval mode
    own: dict[str, Deviation] = field(default_factory=dict)  # with batch statistics in the layers before
    pooled: dict[str, Pooled] = field(default_factory=dict)
    in_eval: Scores = field(default_factory=Scores)
    in_train: Scores = field(default_factory=Scores)
    batch: int = 1  # samples in a batch, median

    def called(self) -> dict[str, Norm]:
        return {name: self.norms[name] for name in self.seen.order}

    def into(self, scores: Scores) -> Any:
        """A consumer that scores each batch."""
        index = {id(batch): position for position, batch in enumerate(self.batches)}

        def consume(batch: Batch, outputs: Any) -> None:
            scores.heads[index[id(batch)]] = score(batch, outputs, self.loss)

        return consume

    def repaired(self, substitute: Substitute, threshold: float | None = None) -> Gain | None:
        """What the outputs gain under `substitute`: batch by batch until more would not change the severity.

        With a `threshold`, until it is clear on which side of it the gain is.
        """
        scores = Scores()
        consume = self.into(scores)
        gain, compared = None, 0
        for batch, outputs in run(self.model, self.norms, self.spread(), self.forward, substitute):
            consume(batch, outputs)
            compared += batch.samples
            gains = scores.gains_over(self.in_eval)
            gain = min(gains, key=lambda each: (SEVERITIES.index(each.severity), -each.value)) if gains else None
            if gain is None:
                break
            clear = threshold is not None and not gain.lower <= threshold <= gain.upper
            if compared >= LEAST_COMPARED and (clear or all(each.decided for each in gains)):
                break
        return gain

    def spread(self) -> list[Batch]:
        """The batches in an order that visits all parts of the data early."""
        count = len(self.batches)
        step = next((s for s in range(max(int(count * 0.618), 1), count + 1) if math.gcd(s, count) == 1), 1)
        return [self.batches[index * step % count] for index in range(count)]


def diagnose(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    reference: Iterable[Any] | None = None,
    loss: Loss | None = None,
    forward: Forward | None = None,
) -> Report:
    """Check every batch norm of `model` on `batches`; the model is left exactly as it was.

    Whether running statistics differ from the population is decided with standard errors that take samples, not
    values, as independent, and account for all channels and layers. How severe that is follows from the outputs: the
    layer is given the statistics of its input, alone and together with the others, and an error is what gains at
    least 5 points of accuracy (20 % of the loss; without targets: changes 10 % of the answers), a warning at least
    1 point (4 %; 3 %), each beyond its 99 % interval.

    Args:
        model: any module with torch's batch norms, bnmodel's, or subclasses of either.
        batches: an iterable of inputs, or of (inputs, targets). Dicts are passed by keyword, tuples of inputs by
            position. A few hundred samples suffice; all batches are held in memory.
        reference: batches of training data in the same form, to tell other data from stale statistics.
        loss: loss(outputs, targets) → scalar. Default: cross-entropy for classes, mean squared error for values.
        forward: forward(model, batch) → outputs, for models that are called otherwise.

    Returns:
        The findings, a record per layer, and the outcome in both modes.

    Raises:
        ValueError: no batches, a form of batch that is not understood, or a lazy module.

    Whatever the model's forward raises is raised, too, after the model has been restored.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, received {type(model).__name__}")
    inner = bare(model)
    device = device_of(inner)
    given = read_batches(batches, device, forward is not None, "batches")
    compared = None if reference is None else read_batches(reference, device, forward is not None, "reference")
    norms = named_batch_norms(model)
    checkup = Checkup(
        inner, norms, given, forward, loss, {name: norm.training for name, norm in norms.items()}, model.training
    )
    checkup.batch = int(median(batch.samples for batch in given))
    with borrowed(inner):
        return _examine(checkup, compared)


def _examine(checkup: Checkup, reference: list[Batch] | None) -> Report:
    checkup.seen = observe(
        checkup.model, checkup.norms, checkup.batches, checkup.forward, checkup.into(checkup.in_eval)
    )
    checkup.pooled = run_with_batch_statistics(
        checkup.model,
        checkup.norms,
        checkup.batches,
        checkup.forward,
        checkup.seen.centres,
        checkup.into(checkup.in_train),
    )
    fits_reference = _observe_reference(checkup, reference)
    findings = _state_findings(checkup)
    definite = {finding.layer for finding in findings if finding.severity == "error" and finding.code != "mixed-modes"}
    _measure_deviations(checkup)
    several, several_layers = _several_populations(checkup)
    findings += several
    stale, recalibration, consequences = _stale(checkup, definite | several_layers, definite, fits_reference)
    exploding = {finding.layer for finding in stale if finding.code == "exploding-channels"}
    findings = [f for f in findings if not (f.code == "exploding-channels" and f.layer in exploding)] + stale
    findings += _tiny_batches(checkup, explained=any(finding.severity != "note" for finding in findings))
    position = {name: index for index, name in enumerate(checkup.seen.order)}
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), position.get(f.layer, -1)))
    return Report(
        tuple(findings),
        tuple(_record(checkup, name, consequences) for name in _ordered(checkup)),
        checkup.in_eval.outcome(),
        checkup.in_train.outcome() if checkup.in_train.heads else None,
        _disagreement(checkup),
        recalibration,
        sum(batch.samples for batch in checkup.batches),
    )


def _state_findings(checkup: Checkup) -> list[Finding]:
    """Of layers that were called: what their own state shows."""
    findings: list[Finding | None] = []
    for name, norm in checkup.called().items():
        own = state.invalid(name, norm) or state.never_updated(name, norm) or state.batch_statistics(name, norm)
        findings.append(own)
        findings.append(state.dead(name, norm, _dead(checkup, name)))
        if own is None:
            findings.append(state.exploding(name, norm, checkup.seen.peaks.get(name)))
    findings.append(state.mixed_modes(checkup.called(), checkup.modes, checkup.root_training))
    return [finding for finding in findings if finding is not None]


def _dead(checkup: Checkup, name: str) -> Tensor:
    """Channels that are dead in eval mode and with batch statistics in the layers before."""
    whole = checkup.seen.whole[name]
    populations = [(whole.mean, whole.var)]
    if name in checkup.pooled:
        populations.append(checkup.pooled[name].mean_var())
    return state.dead_channels(checkup.norms[name], *populations)


def _measure_deviations(checkup: Checkup) -> None:
    layers = len(checkup.seen.order)
    for name, norm in checkup.called().items():
        whole = checkup.seen.whole[name]
        expected = checkup.expected[name] = expected_in_training(checkup.seen.by_call.get(name, []), whole)
        running = running_statistics(norm)
        if running is None:
            continue
        checkup.deviations[name] = deviation(*running, norm.eps, expected, layers)
        if name in checkup.pooled:
            mean, var = checkup.pooled[name].mean_var()
            scale = ((var + norm.eps) / (whole.var + norm.eps)).nan_to_num(1.0)
            alone = replace(
                whole,
                mean=mean,
                var=var,
                mean_error=whole.mean_error.nan_to_num(0.0) * scale.sqrt(),
                var_error=whole.var_error.nan_to_num(0.0) * scale,
            )
            checkup.own[name] = deviation(*running, norm.eps, alone, layers)


def _observe_reference(checkup: Checkup, reference: list[Batch] | None) -> dict[str, Deviation]:
    """Each layer's deviation from the reference's population."""
    if reference is None:
        return {}
    seen = observe(checkup.model, checkup.norms, reference, checkup.forward, lambda *_: None)
    found = {}
    for name in seen.order:
        running = running_statistics(checkup.norms[name])
        if running is not None:
            expected = expected_in_training(seen.by_call.get(name, []), seen.whole[name])
            found[name] = deviation(*running, checkup.norms[name].eps, expected, len(seen.order))
    return found


def _several_populations(checkup: Checkup) -> tuple[list[Finding], set[str]]:
    """Layers whose calls get inputs of different statistics, and what statistics per call would change."""
    findings, layers = [], set()
    for name, calls in checkup.seen.by_call.items():
        norm = checkup.norms[name]
        first, eps = calls[0], norm.eps
        apart = [deviation(first.mean, first.var, eps, other, len(checkup.norms)) for other in calls[1:]]
        farthest = max(apart, key=lambda each: each.size)
        if not farthest.certain or farthest.size < SEVERAL:
            continue
        layers.add(name)
        gain = None
        if running_statistics(norm) is not None:
            gain = checkup.repaired(_per_call(name, calls))
        findings.append(
            Finding(
                "several-populations",
                "note" if gain is None else gain.severity,
                name,
                f"called {len(calls)} times per pass with inputs up to {farthest.distance:.2f} σ and a variance ratio "
                f"of e^{farthest.log_ratio:.2f} apart; one running mean cannot fit them"
                + ("" if gain is None else f" (with statistics per call: {gain})"),
                "use one batch norm per input: nn.ModuleList([nn.BatchNorm2d(C) for _ in inputs])",
            )
        )
    return findings, layers


def _per_call(layer: str, calls: list[Statistics]) -> Substitute:
    def substitute(name: str, index: int, _: Tensor) -> tuple[Tensor, Tensor] | None:
        return (calls[index].mean, calls[index].var) if name == layer and index < len(calls) else None

    return substitute


def _given(statistics: dict[str, tuple[Tensor, Tensor]]) -> Substitute:
    return lambda name, _, __: statistics.get(name)


def _stale(
    checkup: Checkup, excluded: set[str], definite: set[str], fits_reference: dict[str, Deviation]
) -> tuple[list[Finding], Gain | None, dict[str, str]]:
    """The layer where running statistics begin to differ from their input's, and its consequences.

    Returns:
        Findings; what repairing all layers changes; and layer → the layer whose consequence its deviation is.
    """
    suspicious = [
        name
        for name in checkup.seen.order
        if name not in excluded and name in checkup.deviations and checkup.deviations[name].material
    ]
    if suspicious and _batches_mislead(checkup):
        _pool_mixed(checkup)
    if definite:  # the input of the layers after them is not what it would be
        after = checkup.seen.order.index(min(definite, key=checkup.seen.order.index))
        suspicious = [
            name
            for name in suspicious
            if checkup.seen.order.index(name) < after or (name in checkup.own and checkup.own[name].size >= OWN)
        ]
    if not suspicious:
        return [], None, {}
    primary = _where_it_begins(checkup, suspicious)
    joint = None
    if len(suspicious) > 1 and checkup.pooled:
        everything = {name: pooled.mean_var() for name, pooled in checkup.pooled.items() if name not in definite}
        everything[checkup.seen.order[0]] = _population(checkup, checkup.seen.order[0])
        joint = checkup.repaired(_given(everything))
    primary, single = _explained(checkup, suspicious, primary, joint)
    gain = _worse(single, joint)
    found = checkup.deviations[primary]
    severity = _severity(found, gain)
    if severity == "note" and found.size < NOTEWORTHY:
        return [], gain, {}
    code = _code(checkup, primary, fits_reference)
    if severity != "note" and code != "different-data" and gain is not None:
        exploding = _amplified_alone(checkup, primary, gain)
        if exploding is not None:
            return [exploding], gain, {name: primary for name in suspicious[suspicious.index(primary) + 1 :]}
    findings = [_stale_finding(checkup, primary, code, severity, gain)]
    after_primary = suspicious[suspicious.index(primary) + 1 :]
    consequences = {name: primary for name in after_primary}
    if severity != "note":
        for name in after_primary:
            if name in checkup.own and checkup.own[name].certain and checkup.own[name].size >= OWN:
                other = _code(checkup, name, fits_reference)
                findings.append(_stale_finding(checkup, name, other, "note", None, primary))
    return findings, gain, consequences


def _severity(found: Deviation, gain: Gain | None) -> Severity:
    """By the gain, and a step less for a deviation that a steadily trained network may show: its average lags."""
    if gain is None:
        return "warning" if found.size >= 1 else "note"
    if found.size >= NOTEWORTHY:
        return gain.severity
    return "warning" if gain.severity == "error" and gain.kind != "answers" else "note"


def _batches_mislead(checkup: Checkup) -> bool:
    """Whether statistics of these batches are far from the population's: too few values, or sorted by class."""
    noise = [value for name in checkup.seen.order if (value := _batch_noise(checkup, name)) is not None]
    if noise and max(noise) > TINY**-0.5:
        return True
    targets = [batch.targets for batch in checkup.batches]
    if not all(isinstance(t, Tensor) and t.dim() == 1 and not t.is_floating_point() for t in targets):
        return False
    most = max(len(t.unique()) for t in targets)
    return 2 * most < len(torch.cat(targets).unique())


def _pool_mixed(checkup: Checkup) -> None:
    """Batch statistics once more, on batches with samples from all parts of the data."""
    batches = mixed(checkup.batches, MIXED_BATCH, MIXED_SAMPLES) if checkup.forward is None else None
    if batches is None:
        return
    checkup.pooled = run_with_batch_statistics(
        checkup.model, checkup.norms, batches, None, checkup.seen.centres, lambda *_: None
    )
    checkup.own.clear()
    _measure_deviations(checkup)


def _amplified_alone(checkup: Checkup, name: str, gain: Gain) -> Finding | None:
    """`exploding-channels` if repairing a layer's few strongly amplified channels gives at least half of `gain`."""
    norm = checkup.norms[name]
    running, strength = running_statistics(norm), amplification(norm)
    amplified = strength > HIGH_AMPLIFICATION
    if running is None or not bool(amplified.any()) or float(amplified.float().mean()) > 0.5:
        return None
    mean, var = (each.detach().clone().double() for each in running)
    expected = checkup.expected[name]
    mean[amplified] = expected.mean.to(mean)[amplified]
    var[amplified] = expected.var.to(var)[amplified]
    alone = checkup.repaired(_given({name: (mean, var)}))
    if alone is None or alone.value < gain.value / 2:
        return None
    return state.exploding_now(name, norm, amplified, checkup.seen.peaks.get(name, 0.0), alone)


def _where_it_begins(checkup: Checkup, suspicious: list[str]) -> str:
    """The first layer that deviates by a large part of the largest deviation of a layer's own."""
    own = {
        name: checkup.own[name].size if name in checkup.own else checkup.deviations[name].size for name in suspicious
    }
    own[suspicious[0]] = max(own[suspicious[0]], checkup.deviations[suspicious[0]].size)
    enough = min(OWN, max(own.values()) / 2)
    return next(name for name in suspicious if own[name] >= enough)


def _explained(checkup: Checkup, suspicious: list[str], primary: str, joint: Gain | None) -> tuple[str, Gain | None]:
    """The layer whose repair alone explains the joint gain, `primary` unless another's deviation is far larger."""

    def own(name: str) -> float:
        return checkup.own[name].size if name in checkup.own else 0.0

    largest = max(suspicious, key=own)
    rival = largest != primary and own(largest) >= 2 * own(primary)
    if joint is not None and joint.severity == "error" and not rival:
        return primary, None
    half = joint.value / 2 if joint is not None and rival else None
    single = checkup.repaired(_given({primary: _population(checkup, primary)}), half)
    if single is None or joint is None or joint.severity == "note" or not rival or single.value >= joint.value / 2:
        return primary, single
    other = checkup.repaired(_given({largest: _population(checkup, largest)}), half)
    return (largest, other) if other is not None and other.value >= joint.value / 2 else (primary, single)


def _population(checkup: Checkup, name: str) -> tuple[Tensor, Tensor]:
    expected = checkup.expected[name]
    return expected.mean, expected.var


def _worse(single: Gain | None, joint: Gain | None) -> Gain | None:
    gains = [gain for gain in (single, joint) if gain is not None]
    return min(gains, key=lambda each: (SEVERITIES.index(each.severity), -each.value)) if gains else None


def _code(checkup: Checkup, name: str, fits_reference: dict[str, Deviation]) -> str:
    found = checkup.deviations[name]
    if name in fits_reference and fits_reference[name].size < 0.5 * found.size:
        return "different-data"
    return cause(checkup.norms[name], checkup.expected[name], found, checkup.batch)


def _stale_finding(
    checkup: Checkup, name: str, code: str, severity: Severity, gain: Gain | None, follows: str = ""
) -> Finding:
    norm, found = checkup.norms[name], checkup.deviations[name]
    seen = batches_tracked(norm)
    measured = (
        f"running mean is {found.distance:.2f} σ from that of the layer's input (at most {found.largest:.2f} σ), "
        f"running variance off by e^{found.log_ratio:.2f}"
    )
    effect = "" if gain is None else f"; repaired: {gain}"
    momentum = "cumulative average" if norm.momentum is None else f"momentum {norm.momentum:g}"
    noise, _ = momentum_noise(norm, checkup.expected[name], checkup.batch)
    why = {
        "stale-statistics": f"{momentum} after {seen} batches explains {noise:.2f} σ",
        "different-data": "they fit the reference batches: these are different data",
        "noisy-statistics": f"{momentum} averages {_averaged(norm):.3g} batches",
        "unconverged-average": f"{momentum}, {seen} batches: {initial_weight(norm):.0%} of the initial values remain",
    }[code]
    remedy = {
        "stale-statistics": state.RECALIBRATE,
        "different-data": "preprocess as in training, or adapt: model = bnmodel.recalibrate(model, these_batches)",
        "noisy-statistics": f"momentum=0.1 or larger batches in training; now: {state.RECALIBRATE}",
        "unconverged-average": f"a larger momentum (0.1) or longer training; now: {state.RECALIBRATE}",
    }[code]
    after = f"; begins at {follows}" if follows else ""
    return Finding(code, severity, name, f"{measured}; {why}{effect}{after}", remedy)


def _averaged(norm: Norm) -> float:
    """Number of batches in the running average, effectively."""
    if norm.momentum is None:
        return float(batches_tracked(norm) or 1)
    return (2 - norm.momentum) / norm.momentum if norm.momentum else float("inf")


def _tiny_batches(checkup: Checkup, explained: bool) -> list[Finding]:
    """The layer whose batches hold the fewest independent values.

    A warning where the model is handed in in train mode and would predict better in eval mode, or where eval mode is
    worse than even such batch statistics and no other finding explains it; otherwise a note.
    """
    noise = {name: value for name in checkup.seen.order if (value := _batch_noise(checkup, name)) is not None}
    if not noise:
        return []
    worst = max(noise, key=lambda name: noise[name])
    effective = 1 / noise[worst] ** 2 if noise[worst] else float("inf")
    if effective >= TINY:
        return []
    severity: Severity = "note"
    effect = ""
    norm = checkup.norms[worst]
    if checkup.modes[worst] or running_statistics(norm) is None:
        gains = checkup.in_eval.gains_over(checkup.in_train)
        if not checkup.in_train.heads:
            severity, effect = "warning", "; a batch of one value per channel cannot be normalised"
        elif gains:
            gain = min(gains, key=lambda each: SEVERITIES.index(each.severity))
            severity = "note" if gain.severity == "note" else "warning"
            effect = f"; eval mode instead of train mode: {gain}"
    elif not explained:
        gains = [gain for gain in checkup.in_train.gains_over(checkup.in_eval) if gain.kind != "answers"]
        if gains and any(gain.severity != "note" for gain in gains):
            severity, effect = "warning", f"; batch statistics instead of running ones: {gains[0]}"
    return [
        Finding(
            "tiny-batches",
            severity,
            worst,
            f"batches of {checkup.batch} hold {effective:.1f} independent values per channel "
            f"({checkup.seen.values[worst]} in all): batch means are off by {noise[worst]:.2f} σ in train mode{effect}",
            "larger batches, nn.SyncBatchNorm over processes, frozen statistics, or nn.GroupNorm",
        )
    ]


def _batch_noise(checkup: Checkup, name: str) -> float | None:
    """Standard deviation of a batch's mean in standard deviations of its values."""
    statistics = checkup.seen.whole[name]
    per_sample = statistics.values_per_sample()
    if math.isnan(per_sample):  # one sample, or no live channel
        if statistics.samples > 1:
            return None
        per_sample = 1.0
    rows = statistics.samples / sum(batch.samples for batch in checkup.batches) * checkup.batch
    effective = max(per_sample * rows / max(checkup.seen.calls[name], 1), 1.0)
    return float(effective**-0.5)


def _disagreement(checkup: Checkup) -> float | None:
    shares = []
    common = [index for index in checkup.in_train.heads if index in checkup.in_eval.heads]
    for head in range(min((len(checkup.in_train.heads[index]) for index in common), default=0)):
        pairs = [(checkup.in_eval.heads[index][head], checkup.in_train.heads[index][head]) for index in common]
        shares.append(float(changed(pairs).mean()))
    return max(shares) if shares else None


def _ordered(checkup: Checkup) -> list[str]:
    return [*checkup.seen.order, *(name for name in checkup.norms if name not in checkup.seen.order)]


def _record(checkup: Checkup, name: str, consequences: dict[str, str]) -> LayerRecord:
    norm = checkup.norms[name]
    record = LayerRecord(
        name=name,
        kind=type(norm).__name__,
        channels=norm.num_features,
        calls=checkup.seen.calls.get(name, 0),
        training=checkup.modes[name],
        momentum=norm.momentum,
        batches=batches_tracked(norm),
    )
    if name not in checkup.seen:
        return record
    found = checkup.deviations.get(name)
    total = sum(own.size**2 for own in checkup.own.values())
    tracked = running_statistics(norm) is not None
    return replace(
        record,
        distance=None if found is None else found.distance,
        largest_distance=None if found is None else found.largest,
        variance_ratio=None if found is None else float(torch.tensor(found.mean_log_ratio).exp()),
        log_variance_ratio=None if found is None else found.log_ratio,
        certain=found is not None and found.certain,
        batch_noise=_batch_noise(checkup, name),
        values_per_batch=checkup.seen.values.get(name),
        dead_channels=int(_dead(checkup, name).sum()),
        amplification=float(amplification(norm).max()) if tracked else None,
        share=checkup.own[name].size ** 2 / total if total and name in checkup.own else None,
        consequence_of=consequences.get(name, ""),
    )
