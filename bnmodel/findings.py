"""Findings about batch norms, shared by `bnmodel.diagnosis` (networks) and `bnmodel.deploy` (exported files)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From the most to the least serious."""

CODES: dict[str, str] = {
    "never-updated": "running statistics have their initial values",
    "stale-statistics": "running statistics differ from those of the layer's input in eval mode",
    "different-data": "running statistics fit the reference batches, not these",
    "noisy-statistics": "momentum is too large, or batches are too small, for a steady average",
    "unconverged-average": "momentum is too small for the number of batches seen",
    "batch-statistics-in-eval": "no running statistics: eval mode uses those of the batch",
    "mixed-modes": "some batch norms are in train mode, others in eval mode",
    "several-populations": "the layer is called several times per pass, with inputs of different statistics",
    "tiny-batches": "too few values per channel for batch statistics",
    "dead-channels": "channels whose output is constant",
    "exploding-channels": "channels amplified beyond the range of half precision",
    "invalid-statistics": "NaN, infinite or negative values in the running statistics, or in the input",
    "training-mode": "the network, or a batch norm of the file, is in training mode",
    "batch-dependent": "a sample's output depends on the rest of its batch",
    "unfolded": "a batch norm could be folded into its neighbour",
    "active-dropout": "a dropout of the file is in training mode",
    "fixed-batch": "the file accepts one batch size only",
}
"""Codes and their meaning."""


@dataclass(frozen=True)
class Finding:
    """One problem of one layer.

    Attributes:
        code: one of `CODES`.
        severity: "error", "warning" or "note".
        layer: qualified name of the module, or of the node in an exported file; "" for the whole network.
        message: the problem, with the measured numbers.
        remedy: a line of code or a command.
    """

    code: str
    severity: Severity
    layer: str
    message: str
    remedy: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"code: expected one of {', '.join(CODES)}, received {self.code!r}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity: expected one of {', '.join(SEVERITIES)}, received {self.severity!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        where = f" {self.layer}" if self.layer else ""
        return f"{self.severity} [{self.code}]{where}: {self.message}\n    remedy: {self.remedy}"


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether any finding is an error."""
    return any(finding.severity == "error" for finding in findings)


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings of one code and severity together, in the order of their first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    return list(groups.values())


def listed(findings: Iterable[Finding]) -> list[str]:
    """One text per group: its first finding in full, and the layers of the others."""
    texts = []
    for first, *others in grouped(findings):
        names = ", ".join(finding.layer for finding in others[:5]) + (" …" if len(others) > 5 else "")
        texts.append(f"{first}\n    the same in {len(others)} more: {names}" if others else str(first))
    return texts
