"""Export a checkpoint, or anybody's network: freeze, write every format, measure, and only then put in place."""

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, SketchClassifier, load_checkpoint
from export import certificate, golden
from export.card import model_card
from export.certificate import eager, exact, file_record
from export.checks import CANVASES, Check
from export.formats import DIGITS, OPSET, SKETCH, WRITERS, Signature
from export.freeze import ExportError, Frozen, freeze, named_norms
from export.golden import Golden

CLASSES = [str(digit) for digit in range(10)]
LICENCE = "MIT; trained on MNIST, which is CC BY-SA 3.0"
INPUTS = {
    "digits": {"type": "float32", "shape": ["N", 1, 28, 28], "range": [0, 1], "meaning": "digits, ink bright"},
    "sketch": {"type": "uint8", "shape": ["H", "W", 4], "range": [0, 255], "meaning": "RGBA drawing, sides 8 … 4096"},
}
OUTPUTS = {
    "digits": [{"name": "log_probs", "type": "float32", "shape": ["N", 10], "meaning": "natural logarithms"}],
    "sketch": [
        {"name": "probabilities", "type": "float32", "shape": [10], "meaning": "all 0.1 for a blank canvas"},
        {"name": "digit", "type": "float32", "shape": [28, 28], "meaning": "what the network saw, ink bright"},
        {"name": "ink", "type": "float32", "shape": [], "meaning": "share of the canvas covered, 0 when blank"},
    ],
}
PREPROCESSING = {
    "digits": "None in the file. MNIST's: ink's bounding box scaled to 20×20 keeping its aspect ratio, antialiased, "
    "centre of mass at pixel (14, 14) of 28×28, ink bright on 0, bytes divided by 255; no mean is subtracted.",
    "sketch": "In the file. Background is the border's median colour; ink is the largest difference from it over "
    "premultiplied red, green, blue and alpha; then as MNIST: box to 20×20, centre of mass to (14, 14) of 28×28.",
}


def export_checkpoint(
    folder: Path | str, data_root: Path | None = None, canvases: certificate.Sizes = CANVASES
) -> list[Check]:
    """Write both models in every format, golden vectors, certificate and model card into `folder`, beside best.pt.

    Returns:
        What was measured; all promises held.

    Raises:
        CheckpointError: best.pt is missing, damaged or not finite.
        ExportError: a promise is broken, or the folder cannot be written. The files of an earlier export stay.
    """
    folder = Path(folder)
    checkpoint = load_checkpoint(folder)
    frozen = freeze(checkpoint.model, DIGITS.example)
    about = {
        "what": f"Handwritten digit recogniser with folded batch normalisation, recipe {checkpoint.recipe['name']}",
        "training": {"dataset": checkpoint.dataset, "recipe": checkpoint.recipe, "best_epoch": checkpoint.results},
        "source": {"file": "best.pt", **file_record(folder / "best.pt")},
        "classes": CLASSES,
        "licence": LICENCE,
    }
    modules = {"digits": frozen.module, "sketch": SketchClassifier(frozen.module).eval()}
    references = {"digits": checkpoint.model, "sketch": SketchClassifier(checkpoint.model)}
    inputs = {"digits": golden.digit_inputs(), "sketch": golden.canvas_inputs()}
    signatures = {"digits": DIGITS, "sketch": SKETCH}
    models = {}
    for stem, signature in signatures.items():
        models[stem] = about | {
            "input": {"name": signature.input, "batched": stem == "digits", **INPUTS[stem]},
            "outputs": OUTPUTS[stem],
            "preprocessing": PREPROCESSING[stem],
            **_describe_norms(checkpoint.model, frozen),
            "versions": _versions(),
        }
    models = json.loads(json.dumps(models))  # as it will be read back: tuples are lists
    vectors = {stem: _golden(references[stem], inputs[stem]) for stem in models}
    with _staging(folder) as staging:
        shutil.copy(folder / "best.pt", staging)
        _write_files(staging, modules, signatures, models, vectors)
        sources = certificate.sources(staging, models)
        measured = _require_held(sources + certificate.measure(staging, models, data_root, canvases))
        certificate.write(staging, models, measured)
        (staging / "best.pt").unlink()
        (staging / "README.md").write_text(model_card(folder.name, models["digits"], measured))
    return measured


def certify(
    module: nn.Module,
    example: Tensor,
    folder: Path | str,
    name: str = "model",
    input: str = "input",
    output: str = "output",
    about: dict[str, Any] | None = None,
) -> list[Check]:
    """Export any network with `CustomBatchNorm` or torch's batch norms, with a certificate that `verify` re-checks.

    Args:
        module: takes one batch, gives one tensor. In train mode its eval copy is exported, and a warning says so.
        example: (N, …) float32 or uint8, N ≥ 2: typical inputs, which become the golden vectors.
        name, input, output: of the files and of what goes in and out; identifiers.
        about: what else to store inside the files, plain data: class names, preprocessing, licence.

    Raises:
        ExportError: as `export_checkpoint`.
    """
    if len(example) < 2:
        raise ValueError(f"example: expected at least 2 samples, received shape {list(example.shape)}")
    if module.training:
        warnings.warn(f"{type(module).__name__} is in train mode; its eval copy is exported", stacklevel=2)
    frozen = freeze(module, example)
    signature = Signature(input, (output,), example, {0: torch.export.Dim("N")})
    reference = copy.deepcopy(module).eval()
    shape = ["N", *example.shape[1:]]
    metadata = (about or {}) | {
        "what": type(module).__name__,
        "input": {"name": input, "batched": True, "type": str(example.dtype).split(".")[1], "shape": shape},
        "outputs": [{"name": output}],
        **_describe_norms(module, frozen),
        "versions": _versions(),
    }
    metadata = json.loads(json.dumps(metadata))
    vectors = {name: _golden(reference, [example[i : i + 1].numpy() for i in range(min(len(example), golden.CASES))])}
    with _staging(Path(folder)) as staging:
        _write_files(staging, {name: frozen.module}, {name: signature}, {name: metadata}, vectors)
        measured = _require_held(certificate.measure(staging, {name: metadata}, None, ()))
        certificate.write(staging, {name: metadata}, measured)
    return measured


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder inside `target` in which everything is made; moved into place at the end, removed on any error."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name:
            folder = Path(name)
            yield folder
            for path in sorted(folder.iterdir(), key=lambda path: path.name == certificate.FILE):  # certificate last
                path.replace(target / path.name)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error}); free the disk or choose another folder") from error


def _write_files(
    folder: Path,
    modules: dict[str, nn.Module],
    signatures: dict[str, Signature],
    models: certificate.Models,
    vectors: dict[str, Golden],
) -> None:
    for stem, module in modules.items():
        for ending, write in WRITERS.items():
            write(module, signatures[stem], models[stem], folder / f"{stem}.{ending}")
    golden.write(folder / golden.FILE, vectors)


def _require_held(measured: list[Check]) -> list[Check]:
    broken = [f"  {check.promise}: {check.file}: {check.detail}" for check in measured if not check.passed]
    if broken:
        raise ExportError("nothing was exported, since these promises do not hold:\n" + "\n".join(broken))
    return measured


def _golden(module: nn.Module, inputs: list[Any]) -> Golden:
    run = exact(module) if inputs[0].dtype == np.float32 else eager(module)
    return Golden(inputs, [run(array) for array in inputs])


def _describe_norms(model: nn.Module, frozen: Frozen) -> dict[str, Any]:
    """What was folded stays readable: statistics, γ and β of every norm."""
    norms = {}
    for name, norm in named_norms(model).items():
        custom = norm if isinstance(norm, CustomBatchNorm) else CustomBatchNorm.from_torch(norm)
        state = {key: value.tolist() for key, value in custom.state_dict().items()}
        norms[name] = {"eps": custom.eps, "momentum": custom.momentum, **state}
    return {"batch_norms": norms, "batch_norms_not_folded": frozen.kept}


def _versions() -> dict[str, Any]:
    return {
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx_opset": OPSET,
    }
