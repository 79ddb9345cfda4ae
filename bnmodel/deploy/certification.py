"""`certify`: export any network with its batch norms folded, measure every file, and only then put them in place."""

import json
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from bnmodel.deploy import certificate, checks, golden
from bnmodel.deploy.axes import for_tracing
from bnmodel.deploy.branches import captured_on_one_path, with_fixed_batch
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.cases import OneSize
from bnmodel.deploy.certificate import Model
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError, as_path, first_line
from bnmodel.deploy.evidence import Evidence, gather
from bnmodel.deploy.folder import copy_others, exclusive, others_in, publish, staging
from bnmodel.deploy.folding import fold_graph
from bnmodel.deploy.formats import WRITERS, Program
from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import FORMATS, load_file
from bnmodel.deploy.metadata import describe_norms, described, versions
from bnmodel.deploy.onnx_model import opset_of
from bnmodel.deploy.preflight import exportable, isolated
from bnmodel.deploy.signature import Arguments, FlatNetwork, arguments

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RESERVED = ("golden", "certificate", "README")
INVALID_ONNX = re.compile(r"op_type:(\w+).*\[ShapeInferenceError\] (.+)")
TYPE_UNKNOWN_TO_ONNX = re.compile(r"op_type:(\w+).*has unsupported type: tensor\((\w+)\)")
UNKNOWN_TO_ONNX = re.compile(r"No ONNX function found for <(?:OpOverload\(op=')?([\w. -]+)")


@isolated("the export failed")
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
        module: takes and returns tensors, also in tuples, lists and dicts. Its eval copy is exported, with a warning
            if it is in train mode.
        example: typical inputs: one tensor; a tuple of positional arguments; or a dict of keyword arguments. Samples
            along the first axis become golden vectors. Arguments that are not tensors become constants of the files.
        folder: receives the files, golden.json and certificate.json. Other networks certified there are kept.
        name: stem of the file names.
        input, output: names of the input and output tensors; by default forward's parameters, the keys of dicts, and
            "output".
        about: further JSON metadata to store inside the files, such as class names, preprocessing and licence.
        formats: "torchscript", "onnx", "pt2", or several of them. By default all that can be written; the
            certificate and a warning give the reason for any other.
        opset: of the ONNX file; by default the lowest that has the network's operators.
        dynamic: axes of variable size. By default the first axis of every input that has the batch size, which is the
            first axis of the first input with two axes or more; False for none; (0, 2, 3) for axes of the first input;
            {"image": {0: "N", 2: "H", 3: "W"}} for named axes per input. A first axis named "L" or "T" is a sequence,
            not the batch.

    Returns:
        What was measured; all checks passed.

    Raises:
        ExportError: the network cannot be exported, a format that was asked for cannot be written or is not right,
            or the folder cannot be written to. Then nothing was changed.
    """
    folder, about = as_path("folder", folder), about or {}
    _require_name(name)
    _require_json(about)
    _require_opset(opset)
    asked = _formats(formats)
    network = exportable(module)
    given = arguments(network, example, input)
    flat = FlatNetwork(network, given)
    captured, evidence = _captured_with_evidence(flat, given, output, dynamic)
    folded, kept = fold_graph(captured)
    facts = {**described(captured), **describe_norms(network, folded, kept)}
    if taken := sorted(set(about) & {*facts, "versions", "source"}):
        raise ExportError(f"about: {', '.join(taken)} would replace what is measured; use other names")
    metadata = {"what": type(network).__name__, **about, **facts}
    program = program_of(captured, given, opset)
    with staging(folder) as scratch:
        model, measured = write_model(scratch, name, program, metadata, evidence, asked)
        for format, reason in model.not_written.items():
            warnings.warn(f"{name}.{format} was not written: {reason}", stacklevel=3)
        for note in captured.notes:
            warnings.warn(f"{name}: {note}", stacklevel=3)
        with exclusive(folder):
            others, vectors, before = others_in(folder, name)
            golden.write(scratch / golden.FILE, {**vectors, name: evidence.golden})
            copy_others(folder, scratch, others)
            certificate.write(scratch, {**others, name: model}, [*before, *measured])
            publish(scratch, folder, name)
    return measured


def _captured_with_evidence(
    network: FlatNetwork, given: Arguments, output: Any, dynamic: Any
) -> tuple[Captured, Evidence]:
    captured = captured_on_one_path(network, given, output, dynamic)
    try:
        return captured, gather(network, captured, given.tensors)
    except OneSize as error:
        if dynamic is not None:
            raise
        captured = with_fixed_batch(network, given, output, error)
        return captured, gather(network, captured, given.tensors)


def program_of(captured: Captured, given: Arguments, opset: int | None = None) -> Program:
    """The folded graph as a program that can be written."""
    example = for_tracing(given.tensors, captured.axes)
    return Program(captured.graph, captured.inputs, captured.outputs, captured.axes, example, opset)


def write_model(
    scratch: Path,
    stem: str,
    program: Program,
    metadata: dict[str, Any],
    evidence: Evidence,
    asked: Sequence[str] | None,
) -> tuple[Model, list[Check]]:
    """Write and measure every format in `scratch`; remove and record a format that fails.

    Raises:
        ExportError: no format could be written, or one that was asked for could not.
    """
    failed: dict[str, str] = {}
    wanted = list(asked or FORMATS)
    opset = None
    if "onnx" in wanted:
        try:
            opset = opset_of(program.onnx)
        except Exception as error:  # the exporter raises many kinds
            failed["onnx"] = _reason(error)
    metadata = json.loads(json.dumps({**metadata, "versions": versions(opset)}))
    model = Model(metadata, evidence.yardsticks, [])
    measured: list[Check] = []
    for format in [one for one in wanted if one not in failed]:
        path = scratch / f"{stem}.{format}"
        try:
            measured += _written(path, program, model, evidence.golden)
            model.formats.append(format)
        except OSError:
            raise
        except Exception as error:
            failed[format] = _reason(error)
            path.unlink(missing_ok=True)
    failed = {format: reason.replace(f"{scratch}{os.sep}", "") for format, reason in failed.items()}
    model.not_written.update(failed)
    if failed and (asked is not None or not model.formats):
        reasons = "\n".join(f"  {stem}.{format}: {reason}" for format, reason in failed.items())
        raise ExportError(f"nothing was exported, since these files cannot be written or are not right:\n{reasons}")
    return model, measured


def _written(path: Path, program: Program, model: Model, vectors: Golden) -> list[Check]:
    """Write and measure one file; ExportError if a check fails."""
    format = path.suffix[1:]
    WRITERS[format](program, model.metadata, path)
    try:
        file = load_file(path)
    except ExportError as error:
        raise ExportError(f"loads: {error}") from error
    model.operators[format] = checks.statistics_operators(file)
    found = certificate.measure_file(path, file, model, vectors)
    broken = {check.name: check.detail for check in found if not check.passed}
    if "golden vectors" in broken:  # wrong values fail the other check, too
        broken.pop("batch invariance", None)
    if broken:
        checks_by_detail: dict[str, list[str]] = {}  # an error of the runtime fails several checks alike
        for check, detail in broken.items():
            checks_by_detail.setdefault(detail, []).append(check)
        raise ExportError("; ".join(f"{', '.join(names)}: {detail}" for detail, names in checks_by_detail.items()))
    return found


def _reason(error: Exception) -> str:
    """An ExportError's message, or the root cause of another error."""
    if isinstance(error, ExportError):
        return str(error)
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if "torch.onnx._internal.exporter._tensors.SymbolicTensor" in str(cause):
        return "an operator has an attribute that depends on the batch size or another dynamic axis; use dynamic=False"
    if missing := UNKNOWN_TO_ONNX.search(str(cause)):
        if "complex" in str(cause):
            return f"the ONNX exporter has no {missing[1]} of complex numbers; compute with real and imaginary parts"
        return f"torch's ONNX exporter has no conversion of {missing[1]}; compute it with other operators"
    if refused := TYPE_UNKNOWN_TO_ONNX.search(str(cause)):
        return f"ONNX's {refused[1]} takes no {refused[2]}; convert the network with network.float()"
    if invalid := INVALID_ONNX.search(str(cause)):
        return f"torch's ONNX exporter writes an invalid {invalid[1]} ({invalid[2][:150]}); use other operators"
    return f"torch cannot write it ({type(cause).__name__}: {first_line(cause, 200)}); use other operators"


def _formats(formats: str | Sequence[str] | None) -> list[str] | None:
    if formats is None:
        return None
    chosen = list(formats) if isinstance(formats, (list, tuple, set, frozenset)) else [formats]
    unknown = [str(one) for one in chosen if one not in FORMATS]
    if unknown or not chosen:
        raise ExportError(f"formats: expected some of {', '.join(FORMATS)}, received {', '.join(unknown) or 'none'}")
    return [one for one in FORMATS if one in chosen]


def _require_name(name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED:
        raise ExportError(
            f"name: expected letters, digits, '_', '-' and '.', and none of {', '.join(RESERVED)}, received {name!r}"
        )


def _require_json(about: dict[str, Any]) -> None:
    if not isinstance(about, dict):
        raise ExportError(f"about: expected a dict, received {type(about).__name__}")
    try:
        json.dumps(about, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(
            f"about: expected JSON values, received: {first_line(error)}; convert it, for example with str()"
        ) from error


def _require_opset(opset: int | None) -> None:
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int) or not 1 <= opset <= newest):
        raise ExportError(f"opset: expected a number from 1 to {newest}, or None for the lowest, received {opset!r}")
