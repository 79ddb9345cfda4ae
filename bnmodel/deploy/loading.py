"""Load an exported file of any format as a function from arrays to arrays. No checkpoint or model code is needed."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from bnmodel.deploy.folding import ExportError
from bnmodel.deploy.formats import METADATA, torchscript

FORMATS = ("torchscript", "onnx", "pt2")
LOADING = threading.Lock()  # torch.export loads one file at a time, and fails where two threads ask
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class ExportedFile:
    """One loaded file: a function from array to arrays, and what the file says of itself."""

    run: Run
    metadata: dict[str, Any]
    input: str
    outputs: tuple[str, ...] | None  # None where the format does not name them
    operators: frozenset[str]  # of its graph, as the format calls them


def load_file(path: Path, threads: int | None = None) -> ExportedFile:
    """Load one exported file, its format told by its ending. `threads`: of ONNX Runtime; torch's are torch's own.

    Raises:
        ExportError: missing, damaged, or not what its name says.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file; export it: python -m export {path.parent}")
    loader = {".torchscript": _load_torchscript, ".onnx": _load_onnx, ".pt2": _load_pt2}[path.suffix]
    try:
        return loader(path, threads)
    except Exception as error:  # each runtime has errors of its own, and no base class in common
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{path}: damaged, or not what its name says ({reason}); export it again") from error


def _load_torchscript(path: Path, threads: int | None) -> ExportedFile:
    extra = {METADATA: ""}
    with torchscript():
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        operators = frozenset(node.kind() for node in module.inlined_graph.nodes())
        argument = module.forward.schema.arguments[1]
        if not path.stem.startswith("sketch"):  # whose shapes change with every canvas, so that it gains nothing
            module = torch.jit.optimize_for_inference(module.eval())
    return ExportedFile(_run_torch(module), json.loads(extra[METADATA]), argument.name, None, operators)


def _load_pt2(path: Path, threads: int | None) -> ExportedFile:
    extra = {METADATA: ""}
    with LOADING:
        program = torch.export.load(str(path), extra_files=extra)
    operators = frozenset(str(node.target) for node in program.graph.nodes if node.op == "call_function")
    name = program.graph_signature.user_inputs[0]
    return ExportedFile(_run_torch(program.module()), json.loads(extra[METADATA]), str(name), None, operators)


def _load_onnx(path: Path, threads: int | None) -> ExportedFile:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    operators = frozenset(node.op_type for node in onnx.load(path).graph.node)
    outputs = tuple(output.name for output in session.get_outputs())
    return ExportedFile(lambda array: session.run(None, {name: array}), metadata, name, outputs, operators)


def _run_torch(module: Callable[[torch.Tensor], Any]) -> Run:
    def run(array: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(array))
        return [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run
