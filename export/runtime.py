"""Load an exported folder and predict, in any of the three formats. It needs no checkpoint and no model code."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.formats import METADATA, torchscript
from export.freeze import ExportError

FORMATS = ("torchscript", "onnx", "pt2")
LOADING = threading.Lock()  # torch.export loads one file at a time, and fails where two threads ask
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Answer:
    """What the network makes of a drawing."""

    probabilities: np.ndarray  # float32 (10,)
    digit: np.ndarray  # float32 (28, 28) in [0, 1], what it saw
    ink: float  # share of the canvas covered, in [0, 1]

    @property
    def blank(self) -> bool:
        return self.ink == 0

    @property
    def label(self) -> int | None:
        """The most probable digit, None for a blank canvas."""
        return None if self.blank else int(self.probabilities.argmax())


@dataclass(frozen=True)
class Recognizer:
    """The exported pair of one format; safe to share between threads, since nothing in it ever changes."""

    name: str
    metadata: dict[str, Any]
    run_digits: Run
    run_sketch: Run

    def read(self, canvas: np.ndarray) -> Answer:
        """A drawing, uint8 (H, W, 4) RGBA with sides of 8 … 4096.

        Raises:
            ValueError: another shape or type.
        """
        if canvas.dtype != np.uint8 or canvas.ndim != 3 or canvas.shape[2] != 4:
            raise ValueError(f"canvas: expected uint8 (H, W, 4) RGBA, received {canvas.dtype} {canvas.shape}")
        if not all(8 <= side <= 4096 for side in canvas.shape[:2]):
            raise ValueError(f"canvas: expected sides of 8 … 4096 pixels, received {canvas.shape[:2]}; rescale it")
        probabilities, digit, ink = self.run_sketch(np.ascontiguousarray(canvas))
        return Answer(probabilities, digit, float(ink))

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Digits, float32 (N, 1, 28, 28) in [0, 1], ink bright → log-probabilities, float32 (N, 10).

        Raises:
            ValueError: another shape or type.
        """
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (1, 28, 28):
            raise ValueError(f"images: expected float32 (N, 1, 28, 28), received {images.dtype} {images.shape}")
        return self.run_digits(np.ascontiguousarray(images))[0]


def load(folder: Path | str, format: str = "torchscript") -> Recognizer:
    """The exported files in `folder`, checkpoints/lecture for example, as one of FORMATS.

    Raises:
        ExportError: a file is missing or damaged.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, received {format!r}")
    folder = Path(folder)
    digits, sketch = load_file(folder / f"digits.{format}"), load_file(folder / f"sketch.{format}")
    return Recognizer(folder.name, digits.metadata, digits.run, sketch.run)


def available(root: Path | str = "checkpoints") -> list[Path]:
    """The folders below `root` that hold exported files, by name."""
    return sorted(path.parent for path in Path(root).glob("*/sketch.torchscript"))


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
