"""The certificate of an exported folder: what is guaranteed, and the evidence.

certificate.json holds the metadata of each model, which is also inside its files; SHA-256 and size of each file; the
network's own rounding errors, from which tolerances follow; and what was measured. `verify` re-checks all of it from
the folder alone.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bnmodel.deploy import checks, golden
from bnmodel.deploy.allowance import Yardstick
from bnmodel.deploy.checks import Check, Result, held
from bnmodel.deploy.errors import ExportError, as_path
from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import FORMATS, ExportedFile, Predictor, Run, load_file
from bnmodel.io import checksum, stored_checksum, write_checked

FILE = "certificate.json"
FORMAT = 3
DESCRIBED = ("inputs", "outputs", "batched", "batch_norms_not_folded")  # in the metadata of every model


@dataclass
class Model:
    """One certified network of a folder.

    Attributes:
        metadata: also inside each of its files.
        yardsticks: per output, in order.
        formats: those that were written.
        not_written: format that could not be written → the reason.
        operators: format → operators in its graph that compute statistics, for layers other than batch norm.
        extra: evidence of further checks, by name.
    """

    metadata: dict[str, Any]
    yardsticks: list[Yardstick]
    formats: list[str]
    not_written: dict[str, str] = field(default_factory=dict)
    operators: dict[str, list[str]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def evidence(self) -> dict[str, Any]:
        return {
            "formats": self.formats,
            "not_written": self.not_written,
            "yardsticks": [yardstick.to_dict() for yardstick in self.yardsticks],
            "operators": self.operators,
            "extra": self.extra,
        }

    @classmethod
    def read(cls, metadata: dict[str, Any], evidence: dict[str, Any]) -> "Model":
        """Raises: KeyError, TypeError or ValueError, if something is missing."""
        ports = [*metadata["inputs"], *metadata["outputs"]]
        wanted = [(metadata, DESCRIBED), *((port, ("name", "type", "shape")) for port in ports)]
        if "source" in metadata:
            wanted.append((metadata["source"], ("file", "sha256")))
        missing = [key for part, keys in wanted for key in keys if key not in dict(part)]
        if missing or not evidence["formats"]:
            raise ValueError(f"no {', '.join(missing) or 'formats'}")
        yardsticks = [Yardstick.from_dict(one) for one in evidence["yardsticks"]]
        if len(yardsticks) != len(metadata["outputs"]):  # an output without one would not be compared
            raise ValueError(f"{len(yardsticks)} yardsticks for {len(metadata['outputs'])} outputs")
        if not isinstance(evidence["formats"], list):
            raise TypeError(f"formats: expected a list, received {evidence['formats']!r}")
        return cls(
            metadata,
            yardsticks,
            evidence["formats"],
            evidence["not_written"],
            evidence["operators"],
            evidence.get("extra", {}),
        )

    @property
    def outputs(self) -> list[str]:
        return [output["name"] for output in self.metadata["outputs"]]


Models = dict[str, Model]  # by file stem


def verify(folder: Path | str) -> list[Check]:
    """Repeat every check of the certificate in `folder`, from the files.

    Raises:
        ExportError: there is no certificate, or it cannot be read. Any other fault is a failed Check.
    """
    folder = as_path("folder", folder)
    return intact(folder) + measure(folder, models(folder))[0]


def load(folder: Path | str, name: str | None = None, format: str | None = None) -> Predictor:
    """A certified network of `folder` as a function from arrays to named arrays.

    Args:
        name: of the model; needed if the folder has several.
        format: "onnx", "torchscript" or "pt2"; by default the first of these that was written.

    Raises:
        ExportError: the folder has no certificate, or not this model or format, or a file is missing or damaged.
    """
    folder = as_path("folder", folder)
    content = read(folder / FILE)
    found = _models(content, folder)
    if name is None and len(found) == 1:
        name = next(iter(found))
    if name is None or name not in found:
        raise ExportError(f"{folder}: expected the name of one of {', '.join(found)}, received {name}")
    model = found[name]
    chosen = format if format is not None else ("onnx" if "onnx" in model.formats else model.formats[0])
    if chosen not in model.formats:
        raise ExportError(f"{folder}: {name} was written as {', '.join(model.formats)}, not as {chosen}")
    path = folder / f"{name}.{chosen}"
    file = load_file(path)
    require_unchanged(path, content)
    return Predictor(name, chosen, file.inputs, tuple(model.outputs), model.metadata, file.run)


def require_unchanged(path: Path, content: dict[str, Any]) -> None:
    """ExportError if the file is not the one that was certified."""
    record = content["files"].get(path.name)
    if record is None or file_record(path)["sha256"] != record["sha256"]:
        raise ExportError(f"{path}: not the file that was certified; restore it, or export it again")


def intact(folder: Path) -> list[Check]:
    """Check that the certificate is complete and unchanged, and so are the files and their checkpoint.

    Raises:
        ExportError: there is no certificate, or it cannot be read.
    """
    content = read(folder / FILE)
    files, found = content["files"], _models(content, folder)
    return [
        held("checksum", FILE, _unedited, content),
        held("complete", FILE, _complete, set(files), found),
        *(held("unchanged", name, _unchanged, folder / name, record) for name, record in files.items()),
        *sources(folder, found),
    ]


def _unedited(certificate: dict[str, Any]) -> Result:
    return Result(stored_checksum(certificate) == checksum(certificate), "SHA-256 of its contents")


def _complete(listed: set[str], found: Models) -> Result:
    known = all(
        set(model.formats) | set(model.not_written) <= set(FORMATS) and model.formats for model in found.values()
    )
    return Result(known and listed == set(_names(found)), f"{len(listed)} files of {', '.join(found)}")


def _names(found: Models) -> list[str]:
    return [f"{stem}.{ending}" for stem, model in found.items() for ending in model.formats] + [golden.FILE]


def sources(folder: Path, found: Models) -> list[Check]:
    """Check that the checkpoint is the one that was exported; empty for networks without a checkpoint."""
    records = [model.metadata["source"] for model in found.values() if "source" in model.metadata]
    by_name = {record["file"]: record for record in records}
    return [held("source", name, _unchanged, folder / name, record) for name, record in by_name.items()]


def measure(folder: Path, found: Models) -> tuple[list[Check], dict[str, Run]]:
    """Check the contents of the files; also return those that could be loaded, by name."""
    try:
        vectors = golden.read(folder / golden.FILE)
    except ExportError as error:
        return [Check("golden vectors", golden.FILE, False, str(error))], {}
    result: list[Check] = []
    runs: dict[str, Run] = {}
    for stem, model in found.items():
        for ending in model.formats:
            path = folder / f"{stem}.{ending}"
            try:
                file = load_file(path)
            except ExportError as error:
                result.append(Check("loads", path.name, False, str(error)))
            else:
                runs[path.name] = file.run
                result += measure_file(path, file, model, vectors.get(stem, Golden([], [])))
    return result, runs


def measure_file(path: Path, file: ExportedFile, model: Model, vectors: Golden) -> list[Check]:
    """The checks that apply to any exported network: names first, then shapes, then values."""
    metadata = model.metadata
    inputs, batched = [one["name"] for one in metadata["inputs"]], metadata["batched"]
    recorded = model.operators.get(path.suffix[1:])
    run = checks.remembered(file.run)
    found = [
        held("metadata", path.name, _metadata, file, metadata),
        held("names", path.name, checks.names, file, inputs, model.outputs),
        held("shapes", path.name, checks.shapes, run, vectors, metadata["outputs"], batched),
        held("batch norm folded", path.name, checks.folded, file, list(metadata["batch_norms_not_folded"]), recorded),
        held("golden vectors", path.name, checks.agreement, run, vectors.inputs, vectors.outputs, model.yardsticks),
        held("determinism", path.name, lambda: checks.determinism(path, file, vectors.inputs[0], model.yardsticks)),
    ]
    if batched:
        found.append(held("batch invariance", path.name, checks.batch_invariance, run, vectors, model.yardsticks))
    return found


def _metadata(file: ExportedFile, recorded: dict[str, Any]) -> Result:
    return Result(file.metadata == recorded, "inside the file as in the certificate")


def write(folder: Path, found: Models, measured: list[Check]) -> None:
    """Write what was measured of the files in `folder`, with a checksum."""
    content = {
        "format": FORMAT,
        "models": {stem: model.metadata for stem, model in found.items()},
        "files": {name: file_record(folder / name) for name in _names(found)},
        "evidence": {stem: model.evidence() for stem, model in found.items()},
        "measured": [asdict(check) for check in measured],
    }
    write_checked(folder / FILE, content)


def read(path: Path) -> dict[str, Any]:
    """A certificate's content; ExportError if it is missing, damaged or of another format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; certify a network into this folder first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: damaged ({error}); export the folder again") from error
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not all(isinstance(content.get(key), dict) for key in ("models", "files", "evidence"))
        or stored_checksum(content) is None
    ):
        raise ExportError(f"{path}: expected a certificate of format {FORMAT}; export the folder again")
    return content


def models(folder: Path) -> Models:
    """The certified networks of a folder, by file stem.

    Raises:
        ExportError: as `read`.
    """
    return _models(read(folder / FILE), folder)


def _models(content: dict[str, Any], folder: Path) -> Models:
    try:
        if incomplete := [name for name, record in content["files"].items() if "sha256" not in dict(record)]:
            raise ValueError(f"no SHA-256 of {', '.join(incomplete)}")
        return {stem: Model.read(one, content["evidence"][stem]) for stem, one in content["models"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{folder / FILE}: damaged ({error!r}); export the folder again") from error


def file_record(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def _unchanged(path: Path, record: dict[str, Any]) -> Result:
    received = file_record(path)
    passed = received["sha256"] == record["sha256"]
    differs = f", expected SHA-256 {record['sha256'][:12]}…, received {received['sha256'][:12]}…"
    return Result(passed, f"{received['bytes']:,} bytes{'' if passed else differs}")
