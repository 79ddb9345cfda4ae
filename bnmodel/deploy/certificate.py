"""What is promised of an exported folder, and the proof.

certificate.json holds, for each model, the metadata that is also inside its files; for each file its SHA-256 and size;
and what was measured. `verify` re-checks all of it from the folder alone.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bnmodel import CheckpointError, SketchClassifier, load_checkpoint
from bnmodel.data import DataError, load_mnist, load_sample
from bnmodel.deploy import checks, golden
from bnmodel.deploy.checks import CANVASES, Check, Finding, held
from bnmodel.deploy.folding import ExportError
from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import FORMATS, ExportedFile, Run, load_file
from bnmodel.io import checksum, stored_checksum, write_checked
from bnmodel.training.evaluation import EVALUATION_BATCH

FILE = "certificate.json"
FORMAT = 1
Models = dict[str, dict[str, Any]]  # file stem → metadata
Sizes = Sequence[tuple[int, int]]


def verify(folder: Path | str, data_root: Path | None = None, canvases: Sizes = CANVASES) -> list[Check]:
    """Every promise of the certificate in `folder`, checked again from the files.

    `data_root`: where MNIST's test set may be; without it the shipped sample has to do.

    Raises:
        ExportError: there is no certificate, or it cannot be read. Anything else that is wrong is a failed Check.
    """
    folder = Path(folder)
    return intact(folder) + measure(folder, read(folder / FILE)["models"], data_root, canvases)


def intact(folder: Path) -> list[Check]:
    """That the certificate is whole and the files, and the checkpoint they come from, are those it was made for.

    Raises:
        ExportError: there is no certificate, or it cannot be read.
    """
    certificate = read(folder / FILE)
    files, models = certificate["files"], certificate["models"]
    needed = {f"{stem}.{ending}" for stem in models for ending in FORMATS} | {golden.FILE}
    return [
        held(
            "checksum", FILE, lambda: (stored_checksum(certificate) == checksum(certificate), "SHA-256 of its contents")
        ),
        held("complete", FILE, lambda: (needed <= set(files), f"{len(files)} files of {', '.join(models)}")),
        *(held("unchanged", name, _unchanged, folder / name, record) for name, record in files.items()),
        *sources(folder, models),
    ]


def sources(folder: Path, models: Models) -> list[Check]:
    """That the checkpoint is the one that was exported; nothing where no checkpoint was."""
    records = {model["source"]["file"]: model["source"] for model in models.values() if "source" in model}
    return [held("source", name, _unchanged, folder / name, record) for name, record in records.items()]


def measure(folder: Path, models: Models, data_root: Path | None, canvases: Sizes) -> list[Check]:
    """Every promise about the contents of the files."""
    try:
        vectors = golden.read(folder / golden.FILE)
    except ExportError as error:
        return [Check("golden vectors", golden.FILE, False, str(error))]
    found = []
    runs: dict[str, Run] = {}
    for stem, metadata in models.items():
        for path in (folder / f"{stem}.{ending}" for ending in FORMATS):
            try:
                file = load_file(path)
            except ExportError as error:
                found.append(Check("loads", path.name, False, str(error)))
                continue
            runs[path.name] = file.run
            found += _measure_file(path, file, metadata, vectors.get(stem, Golden([], [])))
    if "digits" in models and "sketch" in models:
        found += _measure_against_source(folder, runs, models["digits"]["source"], data_root, canvases)
    return found


def _measure_file(path: Path, file: ExportedFile, metadata: dict[str, Any], vectors: Golden) -> list[Check]:
    """What holds for any exported network: names first, then shapes, then values."""
    outputs = [output["name"] for output in metadata["outputs"]]
    batched = metadata["input"]["batched"]
    found = [
        held("metadata", path.name, lambda: (file.metadata == metadata, "inside the file as in the certificate")),
        held("names", path.name, checks.names, file, metadata["input"]["name"], outputs),
        held("shapes", path.name, checks.shapes, file.run, vectors, batched),
        held("batch norm folded", path.name, checks.folded, file, metadata["batch_norms_not_folded"]),
        held("golden vectors", path.name, checks.agreement, file.run, vectors.inputs, vectors.outputs),
        held("determinism", path.name, lambda: checks.determinism(path, file, vectors.inputs[0])),
    ]
    if batched:
        found.append(held("batch invariance", path.name, checks.batch_invariance, file.run, vectors.inputs))
    return found


def _measure_against_source(
    folder: Path, runs: dict[str, Run], source: dict[str, Any], data_root: Path | None, canvases: Sizes
) -> list[Check]:
    """The checkpoint is the one that was exported, and the files agree with its network in eager mode, unfolded.

    That of digits is reckoned in float64, so that the difference is the file's own rounding and not that of both.
    """
    try:
        checkpoint = load_checkpoint(folder / source["file"])
    except CheckpointError as error:
        return [Check("source", source["file"], False, str(error))]
    model, sketch = checkpoint.model, eager(SketchClassifier(checkpoint.model))
    found: list[Check] = []
    for title, images in _real_digits(data_root).items():
        batches = np.array_split(images, -(-len(images) // EVALUATION_BATCH))
        expected, single = ([run(batch) for batch in batches] for run in (exact(model), eager(model)))
        rounding = max(checks.largest_difference(a[0], b[0]) for a, b in zip(single, expected, strict=True))
        found += _agree(runs, "digits", title, batches, expected, rounding)
    digit = golden.digit_inputs()[6][0, 0]
    for height, width in canvases:
        drawings = [golden.canvas(digit, height, width, dark) for dark in (True, False)]
        title = f"canvas {height}×{width}, both polarities"
        found += _agree(runs, "sketch", title, drawings, [sketch(drawing) for drawing in drawings])
    return found


def _agree(
    runs: dict[str, Run],
    stem: str,
    title: str,
    inputs: list[np.ndarray],
    expected: list[list[np.ndarray]],
    rounding: float = 0.0,
) -> list[Check]:
    """The files of `stem` that could be loaded answer as expected."""
    chosen = {name: run for name, run in runs.items() if name.startswith(f"{stem}.")}
    return [held(title, name, checks.agreement, run, inputs, expected, rounding) for name, run in chosen.items()]


def _real_digits(data_root: Path | None) -> dict[str, np.ndarray]:
    digits = {"the shipped sample": load_sample(train=False).images.numpy()}
    if data_root is not None:
        with suppress(DataError):  # the report then has no such line
            digits["MNIST's test set"] = load_mnist(train=False, root=data_root, download=False).images.numpy()
    return digits


def eager(module: nn.Module) -> Run:
    """A module in eval mode as a function from array to arrays."""

    def run(array: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(array))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def exact(module: nn.Module) -> Run:
    """The same, computed in float64 and rounded to float32 at the end: what errors of rounding are measured against."""
    run = eager(copy.deepcopy(module).double())
    return lambda array: [output.astype(np.float32) for output in run(array.astype(np.float64))]


def write(folder: Path, models: Models, measured: list[Check]) -> None:
    """Write what was measured of the files in `folder`, with a checksum."""
    names = [f"{stem}.{ending}" for stem in models for ending in FORMATS] + [golden.FILE]
    content = {
        "format": FORMAT,
        "models": models,
        "files": {name: file_record(folder / name) for name in names},
        "measured": [asdict(check) for check in measured],
    }
    write_checked(folder / FILE, content)


def read(path: Path) -> dict[str, Any]:
    """A certificate's content; ExportError where it is missing, damaged or of another format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; export the folder first: python -m export {path.parent}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: damaged ({error}); export the folder again") from error
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not {"models", "files"} <= set(content)
        or stored_checksum(content) is None
    ):
        raise ExportError(f"{path}: expected a certificate of format {FORMAT}; export the folder again")
    return content


def file_record(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def _unchanged(path: Path, record: dict[str, Any]) -> Finding:
    received = file_record(path)
    passed = received["sha256"] == record["sha256"]
    return passed, f"{received['bytes']:,} bytes" + (
        "" if passed else f", SHA-256 {received['sha256'][:12]}… is another"
    )
