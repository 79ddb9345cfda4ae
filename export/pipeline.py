"""Export a checkpoint: fold batch norms, write and measure every format, and only then put the files in place."""

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
from bnmodel.deploy.evidence import Evidence, evaluate
from bnmodel.deploy.folder import copy_others, exclusive, others_in, publish, staging
from bnmodel.deploy.folding import fold_graph
from bnmodel.deploy.loading import FORMATS, load_file
from bnmodel.deploy.metadata import describe_norms, described
from bnmodel.deploy.preflight import exportable
from bnmodel.deploy.signature import FlatNetwork, arguments
from export.inputs import canvas_inputs, digit_inputs
from export.model_card import model_card
from export.verification import CANVASES, Sizes, against_source

CLASSES = [str(digit) for digit in range(10)]
LICENCE = "MIT; trained on MNIST, which is CC BY-SA 3.0"
DRAWING = {"range": [0, 255], "meaning": "RGBA drawing, sides 8 … 4096"}
INPUTS = {"digits": {"range": [0, 1], "meaning": "digits, ink bright"}, "sketch": DRAWING, "numbers": DRAWING}
OUTPUTS = {  # name → meaning
    "digits": {"log_probs": "natural logarithms"},
    "sketch": {
        "probabilities": "all 0.1 for a blank canvas",
        "digit": "what the network saw, ink bright",
        "ink": "share of the canvas covered, 0 when blank",
    },
    "numbers": {
        "count": "digits found, 0 when blank, -1 for more than 8",
        "boxes": "left, top, right, bottom in canvas pixels",
        "probabilities": "per digit in reading order, then 0",
    },
}
PREPROCESSING = {
    "digits": "Not in the file; as in MNIST: the bounding box of the ink is scaled to 20×20, with antialiasing and its "
    "aspect ratio kept; its centre of mass is placed at pixel (14, 14) of 28×28; ink is bright on 0; bytes are divided "
    "by 255; no mean is subtracted.",
    "sketch": "In the file. Ink is what differs from the local colour of the paper in premultiplied red, green, blue "
    "or alpha. Frames, lines across the picture and specks are removed. Then as in MNIST: the bounding box is scaled "
    "to 20×20, the centre of mass placed at (14, 14) of 28×28.",
    "numbers": "In the file; as in sketch, for each digit separately.",
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
        data_root: folder of MNIST's test set, used if it exists.
        canvases: sizes (H, W) of drawings on which the files are compared with the network.
        canvas: export sketch and numbers for this size (H, W) only, for runtimes without dynamic shapes.

    Returns:
        What was measured; all checks passed.

    Raises:
        CheckpointError: best.pt is missing, damaged or not finite.
        ExportError: a check fails, or the folder cannot be written. The files of an earlier export stay.
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
    vectors, measured = {}, []
    with staging(folder) as scratch:
        shutil.copy(folder / "best.pt", scratch)
        for stem, network in networks.items():
            fixed = canvas is not None and stem != "digits"
            model, checks, evidence = _write(scratch, stem, network, inputs[stem], about, fixed)
            found[stem], vectors[stem] = model, evidence.golden
            measured += checks
        names = [f"{stem}.{format}" for stem, model in found.items() for format in model.formats]
        runs = {name: load_file(scratch / name).run for name in names}
        sizes = canvases if canvas is None else (canvas,)
        measured += against_source(networks, found, runs, data_root, sizes)
        _require_passed(certificate.sources(scratch, found) + measured)
        (scratch / "best.pt").unlink()
        card = model_card(folder.name, found["digits"].metadata, measured)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        with exclusive(folder):
            others, other_vectors, before = others_in(folder, *found)
            golden.write(scratch / golden.FILE, {**other_vectors, **vectors})
            copy_others(folder, scratch, others)
            certificate.write(scratch, {**others, **found}, [*before, *measured])
            publish(scratch, folder, *found)
    return measured


def _write(
    scratch: Path, stem: str, network: nn.Module, inputs: list[np.ndarray], about: dict[str, Any], fixed: bool
) -> tuple[certificate.Model, list[Check], Evidence]:
    tensors = [torch.from_numpy(array) for array in inputs]
    example = torch.cat(tensors) if stem == "digits" else tensors[1]
    if fixed:  # for runtimes with few operators on bytes
        network.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(torch.float32),))
    given = arguments(network, example)
    flat = FlatNetwork(network, given)
    captured = captured_on_one_path(flat, given, list(OUTPUTS[stem]), False if fixed else DYNAMIC[stem])
    evidence = evaluate(flat, [[tensor] for tensor in tensors], captured.outputs, CHANNELS[stem], keep_all=True)
    folded, kept = fold_graph(captured)
    facts = described(captured)
    metadata = {
        **about,
        **facts,
        "inputs": [{**facts["inputs"][0], **INPUTS[stem]}],
        "outputs": [{**output, "meaning": OUTPUTS[stem][output["name"]]} for output in facts["outputs"]],
        "preprocessing": PREPROCESSING[stem],
        **describe_norms(network, folded, kept),
    }
    metadata["batch_norms"] = {name.removeprefix("network."): norm for name, norm in metadata["batch_norms"].items()}
    model, checks = write_model(scratch, stem, program_of(captured, given), metadata, evidence, FORMATS)
    return model, checks, evidence


def _require_passed(measured: list[Check]) -> None:
    """Raise ExportError with every failed check, if there are any."""
    broken = [f"  {check.name}: {check.file}: {check.detail}" for check in measured if not check.passed]
    if broken:
        raise ExportError("nothing was exported, since these checks failed:\n" + "\n".join(broken))
