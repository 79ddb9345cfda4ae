"""Export any network: fold, write every format, measure, and only then put in place."""

import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import nn

from bnmodel.deploy import certificate, checks, golden
from bnmodel.deploy.branches import captured_on_one_path, fixed_batch
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.certificate import Model
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError, as_export_error, first_line
from bnmodel.deploy.folding import fold_graph, refuse_graph
from bnmodel.deploy.formats import WRITERS, Program
from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import FORMATS, load_file
from bnmodel.deploy.onnx_model import opset_of
from bnmodel.deploy.preflight import exportable, named_norms
from bnmodel.deploy.samples import Evidence, OneSize, gather
from bnmodel.deploy.signature import Arguments, FlatNetwork, arguments, output_names

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RESERVED = ("golden", "certificate", "README")


@as_export_error("the export failed")
def certify(
    module: nn.Module,
    example: Any,
    folder: Path | str,
    name: str = "model",
    input: str | Sequence[str] | None = None,
    output: str | Sequence[str] | None = None,
    about: dict[str, Any] | None = None,
    *,
    formats: str | Sequence[str] | None = None,
    opset: int | None = None,
    dynamic: Any = None,
) -> list[Check]:
    """Export any network, its batch norms folded, with a certificate that `verify` re-checks.

    Args:
        module: takes tensors (also in tuples, lists and dicts) and returns tensors (likewise). Its eval copy is
            exported; in train mode, a warning says so.
        example: typical inputs: one tensor; a tuple of positional arguments; or a dict of keyword arguments. Samples
            along the first axis become golden vectors. Arguments that are no tensors become part of the files.
        folder: receives the files, golden.json and certificate.json. Other networks certified there are kept.
        name: of the files.
        input, output: names of the tensors that go in and come out; by default forward's parameters, the keys of
            dicts, and "output".
        about: what else to store inside the files, as JSON: class names, preprocessing, licence.
        formats: "torchscript", "onnx", "pt2", or several of them. By default all that can be written; the
            certificate and a warning say why another could not be.
        opset: of the ONNX file; by default the lowest that has the network's operators.
        dynamic: axes of variable size. By default the first axis of every input that shares its size with the first
            input's; False for none; (0, 2, 3) for axes of the first input; {"image": {0: "N", 2: "H", 3: "W"}} for
            named axes per input.

    Returns:
        What was measured; all promises held.

    Raises:
        ExportError: the network cannot be exported, a format that was asked for cannot be written or is not right,
            or the folder cannot be written to. Then nothing was changed.
    """
    folder, about = Path(folder), about or {}
    _require_name(name)
    _require_json(about)
    _require_opset(opset)
    asked = _formats(formats)
    network = exportable(module)
    given = arguments(network, example, input)
    flat = FlatNetwork(network, given)
    captured = captured_as(flat, given, output, dynamic)
    try:
        evidence = gather(flat, captured, given.tensors)
    except OneSize as error:
        if dynamic is not None:
            raise
        captured = captured_as(flat, given, output, False)
        captured.notes.append(fixed_batch(given.tensors, error))
        evidence = gather(flat, captured, given.tensors)
    folded, kept = fold_graph(captured)
    metadata = {
        **about,
        "what": about.get("what", type(network).__name__),
        **described(captured),
        **describe_norms(network, folded, kept),
    }
    program = program_of(captured, given, opset)
    with staging(folder, name) as scratch:
        model, measured = write_model(scratch, name, program, metadata, evidence, asked)
        for format, reason in model.not_written.items():
            warnings.warn(f"{name}.{format} was not written: {reason}", stacklevel=3)
        for note in captured.notes:
            warnings.warn(f"{name}: {note}", stacklevel=3)
        others, vectors, before = _others(folder, name)
        golden.write(scratch / golden.FILE, {**vectors, name: evidence.golden})
        copy_others(folder, scratch, others)
        certificate.write(scratch, {**others, name: model}, [*before, *measured])
    return measured


def captured_as(flat: FlatNetwork, given: Arguments, output: Any = None, dynamic: Any = None) -> Captured:
    """The graph of a network, with its outputs named."""
    with torch.no_grad():
        try:
            answer = flat.call(*(tensor.clone() for tensor in given.tensors))
        except Exception as error:
            sizes = ", ".join(str(list(tensor.shape)) for tensor in given.tensors)
            raise ExportError(
                f"{type(flat.model).__name__} raises on the example {sizes}: {first_line(error)}; "
                "pass inputs that the network accepts"
            ) from error
    names = output_names(answer, output, given.names)
    captured = captured_on_one_path(flat, given.tensors, given.names, names, dynamic)
    refuse_graph(captured.graph.graph)
    return captured


def program_of(captured: Captured, given: Arguments, opset: int | None = None) -> Program:
    """The folded graph, ready to be written."""
    example = []
    for tensor, axes in zip(given.tensors, captured.axes, strict=True):
        for axis in axes:
            tensor = torch.cat([tensor, tensor], axis) if tensor.shape[axis] == 1 else tensor
        example.append(tensor)
    return Program(captured.graph, captured.inputs, captured.outputs, captured.axes, tuple(example), opset)


def described(captured: Captured) -> dict[str, Any]:
    """Inputs, outputs and what is dynamic, for the metadata."""
    return {
        "inputs": [port.describe() for port in captured.inputs],
        "outputs": [port.describe() for port in captured.outputs],
        "batched": captured.batched,
        "notes": captured.notes,
    }


def write_model(
    scratch: Path,
    stem: str,
    program: Program,
    metadata: dict[str, Any],
    evidence: Evidence,
    asked: Sequence[str] | None,
) -> tuple[Model, list[Check]]:
    """Write and measure every format in `scratch`; a format that fails is removed and recorded.

    Raises:
        ExportError: no format could be written, or not all that were asked for.
    """
    failed: dict[str, str] = {}
    wanted = list(asked or FORMATS)
    opset = None
    if "onnx" in wanted:
        try:
            opset = opset_of(program.onnx)
        except Exception as error:  # of the exporter, which has many kinds
            failed["onnx"] = _reason(error)
    metadata = json.loads(json.dumps({**metadata, "versions": versions(opset)}))
    model = Model(metadata, evidence.yardsticks, [])
    measured: list[Check] = []
    for format in [one for one in wanted if one not in failed]:
        path = scratch / f"{stem}.{format}"
        try:
            WRITERS[format](program, metadata, path)
        except OSError:
            raise
        except Exception as error:  # of the exporter, which has many kinds
            failed[format] = _reason(error)
            continue
        found = _measured(path, model, evidence.golden)
        broken = [check for check in found if not check.passed]
        if broken:
            path.unlink()
            failed[format] = "; ".join(f"{check.promise}: {check.detail}" for check in broken)
            continue
        model.formats.append(format)
        measured += found
    failed = {format: reason.replace(f"{scratch}{os.sep}", "") for format, reason in failed.items()}  # of this machine
    model.not_written.update(failed)
    if failed and (asked is not None or not model.formats):
        reasons = "\n".join(f"  {stem}.{format}: {reason}" for format, reason in failed.items())
        raise ExportError(f"nothing was exported, since these files cannot be written or are not right:\n{reasons}")
    return model, measured


def require_held(measured: list[Check]) -> list[Check]:
    """The same, or an ExportError that names every broken promise."""
    broken = [f"  {check.promise}: {check.file}: {check.detail}" for check in measured if not check.passed]
    if broken:
        raise ExportError("nothing was exported, since these promises do not hold:\n" + "\n".join(broken))
    return measured


def _measured(path: Path, model: Model, vectors: Golden) -> list[Check]:
    format = path.suffix[1:]
    try:
        file = load_file(path)
    except ExportError as error:
        return [Check("loads", path.name, False, str(error))]
    model.operators[format] = checks.statistics_operators(file)
    return certificate.measure_loaded(path, file, model, vectors)


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {first_line(cause, 200)}"


def _formats(formats: str | Sequence[str] | None) -> list[str] | None:
    if formats is None:
        return None
    chosen = [formats] if isinstance(formats, str) else list(formats)
    unknown = [one for one in chosen if one not in FORMATS]
    if unknown or not chosen:
        raise ExportError(f"formats: expected some of {', '.join(FORMATS)}, received {', '.join(unknown) or 'none'}")
    return [one for one in FORMATS if one in chosen]


def _require_name(name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED:
        raise ExportError(
            f"name: expected letters, digits, '_', '-' and '.', and none of {', '.join(RESERVED)}, received {name!r}"
        )


def _require_json(about: dict[str, Any]) -> None:
    try:
        json.dumps(about)
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(
            f"about: expected what JSON holds, received: {first_line(error)}; convert it, for example with str()"
        ) from error


def _require_opset(opset: int | None) -> None:
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int) or not 1 <= opset <= newest):
        raise ExportError(f"opset: expected a number from 1 to {newest}, or None for the lowest, received {opset!r}")


# ---- the folder


def _others(folder: Path, name: str) -> tuple[certificate.Models, dict[str, Golden], list[Check]]:
    """What else is certified in the folder: models, their golden vectors and what was measured of them.

    Raises:
        ExportError: there is a certificate, and it or its golden vectors cannot be read.
    """
    if not (folder / certificate.FILE).exists():
        return {}, {}, []
    content = certificate.read(folder / certificate.FILE)
    found = certificate.models(folder)
    others = {stem: model for stem, model in found.items() if stem != name}
    files = {f"{stem}.{format}" for stem, model in others.items() for format in model.formats}
    vectors = golden.read(folder / golden.FILE) if others else {}
    before = [Check(**check) for check in content["measured"] if check["file"] in files]
    return others, {stem: vectors[stem] for stem in others if stem in vectors}, before


def copy_others(folder: Path, scratch: Path, others: certificate.Models) -> None:
    """Links to the files of other models, so that the new certificate can be made of all of them."""
    for stem, model in others.items():
        for format in model.formats:
            source = folder / f"{stem}.{format}"
            if not source.is_file():
                raise ExportError(f"{source}: no such file, though the folder's certificate names it; certify it again")
            (scratch / source.name).write_bytes(source.read_bytes())


@contextmanager
def staging(target: Path, *stems: str) -> Iterator[Path]:
    """A folder inside `target` in which everything is made; moved into place at the end, removed on any error.

    stems: of the networks that are written; their earlier files that are not written again are removed.
    """
    made = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name:
            folder = Path(name)
            yield folder
            new = {path.name for path in folder.iterdir()}
            for path in sorted(folder.iterdir(), key=lambda path: path.name == certificate.FILE):  # certificate last
                path.replace(target / path.name)
            for stem in stems:
                for format in FORMATS:
                    if f"{stem}.{format}" not in new:
                        (target / f"{stem}.{format}").unlink(missing_ok=True)
        made = False
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error}); free the disk or choose another folder") from error
    finally:
        if made and target.is_dir() and not any(target.iterdir()):
            target.rmdir()


# ---- the metadata

STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
GREEK = {"weight": "gamma", "bias": "beta"}


def describe_norms(model: nn.Module, folded: Sequence[str], kept: dict[str, str]) -> dict[str, Any]:
    """What was folded stays readable: statistics, γ and β of every norm."""
    norms = {}
    for name, norm in named_norms(model).items():
        values = {GREEK.get(key, key): _plain(getattr(norm, key)) for key in STATE if getattr(norm, key) is not None}
        norms[name] = {"eps": norm.eps, "momentum": norm.momentum, **values}
    return {"batch_norms": norms, "batch_norms_folded": list(folded), "batch_norms_not_folded": kept}


def _plain(tensor: torch.Tensor) -> Any:
    """Numbers with as many digits as their type holds."""
    if not tensor.is_floating_point():
        return tensor.tolist()
    digits = 17 if tensor.dtype == torch.float64 else 9
    return [float(f"{value:.{digits}g}") for value in tensor.flatten().tolist()]


def versions(opset: int | None) -> dict[str, Any]:
    return {
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx_opset": opset,
    }
