"""Export a checkpoint: fold, write every format, measure, and only then put in place."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bnmodel import SketchClassifier, load_checkpoint
from bnmodel.data.numbers import NumberReader
from bnmodel.deploy import certificate, golden
from bnmodel.deploy.branches import captured_on_one_path
from bnmodel.deploy.certificate import Models, file_record
from bnmodel.deploy.certification import program_of, write_model
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.folder import staging
from bnmodel.deploy.folding import fold_graph
from bnmodel.deploy.loading import FORMATS, Run, load_file
from bnmodel.deploy.metadata import describe_norms, described
from bnmodel.deploy.preflight import exportable
from bnmodel.deploy.samples import Evidence, answer
from bnmodel.deploy.signature import FlatNetwork, arguments
from export.inputs import canvas_inputs, digit_inputs
from export.model_card import model_card
from export.promises import CANVASES, Sizes, against_source

CLASSES = [str(digit) for digit in range(10)]
LICENCE = "MIT; trained on MNIST, which is CC BY-SA 3.0"
INPUTS: dict[str, dict[str, Any]] = {
    "digits": {"type": "float32", "shape": ["N", 1, 28, 28], "range": [0, 1], "meaning": "digits, ink bright"},
    "sketch": {"type": "uint8", "shape": ["H", "W", 4], "range": [0, 255], "meaning": "RGBA drawing, sides 8 … 4096"},
    "numbers": {"type": "uint8", "shape": ["H", "W", 4], "range": [0, 255], "meaning": "RGBA drawing, sides 8 … 4096"},
}
OUTPUTS: dict[str, list[dict[str, Any]]] = {
    "digits": [{"name": "log_probs", "type": "float32", "shape": ["N", 10], "meaning": "natural logarithms"}],
    "sketch": [
        {"name": "probabilities", "type": "float32", "shape": [10], "meaning": "all 0.1 for a blank canvas"},
        {"name": "digit", "type": "float32", "shape": [28, 28], "meaning": "what the network saw, ink bright"},
        {"name": "ink", "type": "float32", "shape": [], "meaning": "share of the canvas covered, 0 when blank"},
    ],
    "numbers": [
        {"name": "count", "type": "int64", "shape": [], "meaning": "digits found, 0 when blank, -1 for more than 8"},
        {"name": "boxes", "type": "float32", "shape": [8, 4], "meaning": "left, top, right, bottom in canvas pixels"},
        {"name": "probabilities", "type": "float32", "shape": [8, 10], "meaning": "per digit in reading order, then 0"},
    ],
}
PREPROCESSING = {
    "digits": "None in the file. MNIST's: ink's bounding box scaled to 20×20 keeping its aspect ratio, antialiased, "
    "centre of mass at pixel (14, 14) of 28×28, ink bright on 0, bytes divided by 255; no mean is subtracted.",
    "sketch": "In the file. Ink is what stands out from the paper, as it is lit at each place, in premultiplied red, "
    "green, blue or alpha; frames, lines from side to side and specks are dropped; then as MNIST: box to 20×20, centre "
    "of mass to (14, 14) of 28×28.",
    "numbers": "In the file: as sketch, for each digit alone.",
}
SIZES = {"canvas": {0: "H", 1: "W"}}
DYNAMIC = {"digits": {"images": {0: "N"}}, "sketch": SIZES, "numbers": SIZES}
CHANNELS = {"digits": (1,), "sketch": (None,) * 3, "numbers": (None,) * 3}
"""Axis of each output along which errors are judged separately."""


def networks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The networks that are exported from one checkpoint, by file stem."""
    return {"digits": model, "sketch": SketchClassifier(model).eval(), "numbers": NumberReader(model).eval()}


def export_checkpoint(
    folder: Path | str,
    data_root: Path | None = None,
    canvases: Sizes = CANVASES,
    canvas: tuple[int, int] | None = None,
) -> list[Check]:
    """Write all models in every format, golden vectors, certificate and model card into `folder`, beside best.pt.

    Args:
        data_root: where MNIST's test set may be.
        canvases: sizes on which drawings are compared.
        canvas: the one size (H, W) of drawings that the sketch files take, for runtimes without dynamic shapes.

    Returns:
        What was measured; all promises held.

    Raises:
        CheckpointError: best.pt is missing, damaged or not finite.
        ExportError: a promise is broken, or the folder cannot be written. The files of an earlier export stay.
    """
    folder = Path(folder)
    checkpoint = load_checkpoint(folder)
    about = {
        "what": f"Handwritten digit recogniser with folded batch normalisation, recipe {checkpoint.recipe['name']}",
        "training": {"dataset": checkpoint.dataset, "recipe": checkpoint.recipe, "best_epoch": checkpoint.results},
        "source": {"file": "best.pt", **file_record(folder / "best.pt")},
        "classes": CLASSES,
        "licence": LICENCE,
    }
    drawings = canvas_inputs(canvas)
    inputs = {"digits": digit_inputs(), "sketch": drawings, "numbers": drawings}
    networks = {stem: exportable(network) for stem, network in networks_of(checkpoint.model).items()}
    found: Models = {}
    vectors, runs, measured = {}, {}, []
    with staging(folder) as scratch:
        shutil.copy(folder / "best.pt", scratch)
        for stem, network in networks.items():
            fixed = canvas is not None and stem != "digits"
            model, checks, evidence = _write(scratch, stem, network, inputs[stem], about, fixed)
            found[stem], vectors[stem] = model, evidence.golden
            measured += checks
        golden.write(scratch / golden.FILE, vectors)
        runs = _runs(scratch, found)
        sizes = canvases if canvas is None else (canvas,)
        measured += against_source(networks, found, runs, data_root, sizes)
        _require_held(certificate.sources(scratch, found) + measured)
        certificate.write(scratch, found, measured)
        (scratch / "best.pt").unlink()
        card = model_card(folder.name, found["digits"].metadata, measured)
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return measured


def _write(
    scratch: Path, stem: str, network: nn.Module, inputs: list[np.ndarray], about: dict[str, Any], fixed: bool
) -> tuple[certificate.Model, list[Check], Evidence]:
    tensors = [torch.from_numpy(array) for array in inputs]
    example = torch.cat(tensors) if stem == "digits" else tensors[1]
    names = [output["name"] for output in OUTPUTS[stem]]
    if fixed:  # for runtimes that support few operators on bytes
        network.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(torch.float32),))
    given = arguments(network, example)
    flat = FlatNetwork(network, given)
    captured = captured_on_one_path(flat, given, names, False if fixed else DYNAMIC[stem])
    evidence = answer(flat, [[tensor] for tensor in tensors], captured.outputs, CHANNELS[stem], keep_all=True)
    folded, kept = fold_graph(captured)
    facts = described(captured)
    metadata = {
        **about,
        **facts,
        "inputs": [{**facts["inputs"][0], **{key: INPUTS[stem][key] for key in ("range", "meaning")}}],
        "outputs": [
            {**one, "meaning": known["meaning"]} for one, known in zip(facts["outputs"], OUTPUTS[stem], strict=True)
        ],
        "preprocessing": PREPROCESSING[stem],
        **describe_norms(network, folded, kept),
    }
    metadata["batch_norms"] = {name.removeprefix("network."): norm for name, norm in metadata["batch_norms"].items()}
    model, checks = write_model(scratch, stem, program_of(captured, given), metadata, evidence, FORMATS)
    return model, checks, evidence


def _runs(folder: Path, found: Models) -> dict[str, Run]:
    names = [f"{stem}.{format}" for stem, model in found.items() for format in model.formats]
    return {name: load_file(folder / name).run for name in names}


def _require_held(measured: list[Check]) -> None:
    """Raise ExportError with every broken promise."""
    broken = [f"  {check.promise}: {check.file}: {check.detail}" for check in measured if not check.passed]
    if broken:
        raise ExportError("nothing was exported, since these promises do not hold:\n" + "\n".join(broken))
