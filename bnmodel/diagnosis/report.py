"""The report of `bnmodel.diagnose`: findings, one record per layer, and the outcome in both modes."""

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bnmodel.diagnosis.deviation import LEAST_SAMPLES
from bnmodel.diagnosis.outcome import Gain, Outcome
from bnmodel.findings import SEVERITIES, Finding, has_errors, listed
from bnmodel.io import without_infinities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED_SAMPLES = 50  # with fewer, consequences are hardly certain
HEAD = ("layer", "channels", "batches", "momentum", "distance", "variance", "noise", "dead", "amplification", "share")


@dataclass(frozen=True)
class LayerRecord:
    """Measurements of one batch norm; None if they do not apply.

    Attributes:
        name, kind: qualified name and class.
        channels: C.
        calls: per pass; 0 for a layer that these batches do not reach. Layers are in the order of their first call.
        training: mode in which it was passed in.
        momentum: None for the cumulative average.
        batches: seen in training mode.
        distance: of the running from the population mean in eval mode, in running standard deviations, root mean
            square over channels, without the part that sampling explains.
        largest_distance: of a channel.
        variance_ratio: population variance / running variance, geometric mean over channels.
        log_variance_ratio: root mean square over channels of its logarithm, without the part that sampling explains.
        certain: whether the deviation is beyond chance.
        batch_noise: standard deviation of the mean of a batch of the given size, in standard deviations.
        values_per_batch: values per channel in a batch.
        dead_channels: number.
        amplification: largest |γ|/√(running variance + ε).
        share: estimate, in [0, 1], of the layer's share in the disagreement of eval and train mode: its part of the
            layers' squared deviations with batch statistics in the layers before.
        consequence_of: the earlier layer that causes this layer's deviation, or "".
    """

    name: str
    kind: str
    channels: int
    calls: int
    training: bool
    momentum: float | None
    batches: int | None
    distance: float | None = None
    largest_distance: float | None = None
    variance_ratio: float | None = None
    log_variance_ratio: float | None = None
    certain: bool = False
    batch_noise: float | None = None
    values_per_batch: int | None = None
    dead_channels: int = 0
    amplification: float | None = None
    share: float | None = None
    consequence_of: str = ""


@dataclass(frozen=True)
class Report:
    """The check-up of a network's batch norms.

    Attributes:
        findings: errors first, then warnings and notes, each in the order of the layers.
        layers: a record per batch norm.
        eval_outcome: with running statistics.
        train_outcome: with batch statistics, all else such as dropout in eval mode; None if no batch has enough values.
        disagreement: share of the answers that differ between the two.
        recalibration: estimated gain of `bnmodel.recalibrate`; None if no layer needs it.
        samples: number of samples in the batches.
    """

    findings: tuple[Finding, ...]
    layers: tuple[LayerRecord, ...]
    eval_outcome: Outcome
    train_outcome: Outcome | None
    disagreement: float | None
    recalibration: Gain | None
    samples: int

    @property
    def sound(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def has_errors(self) -> bool:
        return has_errors(self.findings)

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(finding.code for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN and infinities become None."""
        plain: dict[str, Any] = without_infinities(
            {
                "sound": self.sound,
                "samples": self.samples,
                "findings": [finding.to_dict() for finding in self.findings],
                "layers": [asdict(layer) for layer in self.layers],
                "eval": asdict(self.eval_outcome),
                "train": None if self.train_outcome is None else asdict(self.train_outcome),
                "disagreement": self.disagreement,
                "recalibration": None if self.recalibration is None else asdict(self.recalibration),
            }
        )
        return plain

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    def to_html(self, title: str = "Batch-norm check-up") -> str:
        """A self-contained page."""
        from bnmodel.diagnosis.html import page

        return page(self, title)

    def figure(self) -> "Figure":
        """Distance, variance ratio and batch noise per layer."""
        from bnmodel.diagnosis.figures import layers_figure

        return layers_figure(self)

    def __str__(self) -> str:
        lines = [summary(self)]
        lines += [f"\n{text}" for text in listed(self.findings)]
        rows = [layer for layer in self.layers if layer.calls]
        if rows:
            lines += ["", table(rows)]
        return "\n".join(lines)


def summary(report: Report) -> str:
    """Counts, the outcome in both modes, and a warning about too few samples."""
    counts = {severity: sum(f.severity == severity for f in report.findings) for severity in SEVERITIES}
    words = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    norms = len(report.layers)
    if not norms and not report.findings:
        return (
            f"no batch norm found, {report.samples} samples: nothing was checked\n"
            "expected layers of torch's batch norm classes or of subclasses; a folded network has none left"
        )
    samples = f"{report.samples} sample{'s' if report.samples != 1 else ''}"
    head = f"{norms} batch norm{'s' if norms != 1 else ''}, {samples}: {', '.join(words) or 'no findings'}"
    outcomes = {
        "eval mode": report.eval_outcome,
        "batch statistics": report.train_outcome,
        "recalibrated": report.recalibration,
    }
    parts = [f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome and str(outcome)]
    if report.disagreement is not None:
        parts.append(f"{report.disagreement:.1%} of the answers differ between eval mode and batch statistics")
    lines = [head, "; ".join(parts)] if parts else [head]
    if report.samples < LEAST_SAMPLES:
        lines.append(
            f"running statistics were not tested: that takes at least {LEAST_SAMPLES} samples, better a few hundred"
        )
    elif report.samples < JUDGED_SAMPLES:
        lines.append("so few samples show gross deviations only, and hardly their consequence: use a few hundred")
    return "\n".join(lines)


def table(layers: list[LayerRecord]) -> str:
    """A row per layer, as text."""
    rows = [HEAD, *(cells(layer) for layer in layers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = []
    for name, *numbers in rows:
        aligned = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]))
    return "\n".join(lines)


def cells(layer: LayerRecord) -> tuple[str, ...]:
    """A layer's measurements as text."""
    return (
        layer.name or "(model)",
        str(layer.channels),
        "–" if layer.batches is None else str(layer.batches),
        "average" if layer.momentum is None else f"{layer.momentum:g}",
        _number(layer.distance, " σ"),
        "–" if layer.variance_ratio is None else f"×{layer.variance_ratio:.3g}",
        _number(layer.batch_noise, " σ"),
        str(layer.dead_channels or "–"),
        "–" if layer.amplification is None or math.isnan(layer.amplification) else f"{layer.amplification:.3g}",
        "–" if layer.share is None else f"{layer.share:.0%}",
    )


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}{unit}"
