"""Export a checkpoint: freeze, write every format, measure, and only then put in place."""

import json
import shutil
from pathlib import Path

from bnmodel import SketchClassifier, load_checkpoint
from bnmodel.deploy import certificate, golden
from bnmodel.deploy.certificate import file_record
from bnmodel.deploy.certification import (
    describe_norms,
    golden_vectors,
    require_held,
    staging,
    versions,
    write_files,
)
from bnmodel.deploy.checks import CANVASES, Check
from bnmodel.deploy.folding import freeze
from bnmodel.deploy.formats import DIGITS, SKETCH
from export.model_card import model_card

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
            **describe_norms(checkpoint.model, frozen),
            "versions": versions(),
        }
    models = json.loads(json.dumps(models))  # as it will be read back: tuples are lists
    vectors = {stem: golden_vectors(references[stem], inputs[stem]) for stem in models}
    with staging(folder) as scratch:
        shutil.copy(folder / "best.pt", scratch)
        write_files(scratch, modules, signatures, models, vectors)
        sources = certificate.sources(scratch, models)
        measured = require_held(sources + certificate.measure(scratch, models, data_root, canvases))
        certificate.write(scratch, models, measured)
        (scratch / "best.pt").unlink()
        (scratch / "README.md").write_text(model_card(folder.name, models["digits"], measured))
    return measured
