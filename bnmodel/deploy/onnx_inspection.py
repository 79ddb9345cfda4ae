"""Inspect any ONNX file: batch norms in the wrong mode, bad statistics, outputs that depend on the batch."""

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bnmodel.deploy.errors import ExportError, as_path, not_installed
from bnmodel.deploy.sandbox import LimitError, Limits, run_limited
from bnmodel.findings import Finding, has_errors, listed
from bnmodel.io import atomic_write

WORKER = Path(__file__).with_name("onnx_worker")


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting an ONNX file.

    Attributes:
        file: name of the file.
        findings: the most serious first; `Finding.layer` is the node's name.
        batch_norms: number of BatchNormalization nodes.
        opset: version of the standard operators.
        producer: the tool that wrote the file, according to the file.
        batch_invariance: `checked`: whether the file could be run to see if a sample's output depends on its batch;
            `difference`: by how much it does, relative to the largest output, or None if the shape changes or which
            values are finite; `reason`: why it was not checked.
        folded: with `fold_to`: number of batch norms folded, the difference this makes and the difference allowed.
    """

    file: str
    findings: tuple[Finding, ...]
    batch_norms: int
    opset: int
    producer: str
    batch_invariance: dict[str, Any]
    folded: dict[str, Any] | None = None

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not has_errors(self.findings)

    @property
    def batch_dependent(self) -> bool:
        """Whether a sample's output was seen to change with the rest of its batch."""
        return any(finding.code == "batch-dependent" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The inspection as a JSON object."""
        return {
            "file": self.file,
            "sound": self.sound,
            "findings": [finding.to_dict() for finding in self.findings],
            "batch_norms": self.batch_norms,
            "opset": self.opset,
            "producer": self.producer,
            "batch_invariance": self.batch_invariance,
            **({"folded": self.folded} if self.folded is not None else {}),
        }

    def __str__(self) -> str:
        norms = f"{self.batch_norms} batch norm{'' if self.batch_norms == 1 else 's'}"
        invariance = self.batch_invariance
        sound = "sound" if invariance["checked"] else "no error found"
        lines = [f"{self.file}: {sound if self.sound else 'NOT SOUND'}; {norms}, opset {self.opset}"]
        lines += listed(self.findings)
        if not invariance["checked"]:
            lines.append(f"batch invariance not checked: {invariance['reason']}")
        elif not self.batch_dependent:
            difference = invariance["difference"]
            rounding = f", up to {difference:.1e} of the largest output" if difference else ""
            lines.append(f"batch invariance: a sample's output is the same alone and in two other batches{rounding}")
        if self.folded is not None:
            count = self.folded["batch_norms"]
            lines.append(
                f"folded {count} batch norm{'' if count == 1 else 's'}; largest difference "
                f"{self.folded['difference']:.1e} of the largest output, allowed {self.folded['allowed']:.1e}"
            )
        return "\n".join(lines)


def inspect(
    path: Path | str,
    *,
    fold_to: Path | str | None = None,
    external_data: bool = True,
    limits: Limits = Limits(),
) -> Inspection:
    """Inspect an ONNX file, in a separate process with limits.

    The graph is searched for batch norms in training mode, batch statistics in place of running ones, statistics that
    were never updated or are invalid, active dropout and foldable batch norms. Then the model is run on random inputs:
    a sample must have the same output alone and in two different batches.

    Args:
        path: an ONNX file.
        fold_to: path of a copy with its batch norms folded, written after comparison with the original.
        external_data: read weights in files beside `path`; if False, a model with such weights is refused.
        limits: of memory, time and size of written files.

    Raises:
        ExportError: the file is missing, not ONNX, damaged, has custom operators, or exceeds the limits before it is
            run; onnx or onnxruntime is not installed.
        OSError: `fold_to` cannot be written.
    """
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise ExportError(not_installed(package))
    path = as_path("path", path)
    if not path.is_file():
        raise ExportError(f"{path}: expected an ONNX file, received {'a folder' if path.is_dir() else 'no such file'}")
    if fold_to is not None and as_path("fold_to", fold_to).is_dir():
        raise ExportError(f"fold_to: expected the path of a file, received the folder {fold_to}")
    with nullcontext() if fold_to is None else atomic_write(fold_to) as temporary:
        request = {
            "path": str(path.resolve()),
            "external_data": external_data,
            "fold_to": None if temporary is None else str(temporary),
        }
        try:
            answer = _printable(run_limited(WORKER, request, limits))
        except LimitError as error:
            raise ExportError(f"{path.name}: {error}") from error
        if "error" in answer:
            raise ExportError(f"{path.name}: {answer['error']}")
    findings = tuple(Finding(**finding) for finding in answer.pop("findings"))
    return Inspection(path.name, findings, **answer)


def _printable(value: Any) -> Any:
    """The same JSON value with control characters escaped: a name in the file could otherwise rewrite the terminal."""
    if isinstance(value, str):
        return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in value)
    if isinstance(value, dict):
        return {key: _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value
