"""Repeat the checks of this project's files, and compare them with the checkpoint's network on digits and drawings."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bnmodel import CheckpointError, load_checkpoint
from bnmodel.data import DataError, load_mnist, load_sample
from bnmodel.deploy import certificate, checks
from bnmodel.deploy.allowance import Yardstick
from bnmodel.deploy.certificate import Models
from bnmodel.deploy.checks import Check, held
from bnmodel.deploy.evidence import evaluate
from bnmodel.deploy.golden import Arrays
from bnmodel.deploy.loading import Run
from bnmodel.deploy.signature import FlatNetwork, Port, arguments
from bnmodel.training.evaluation import EVALUATION_BATCH
from export.inputs import canvas, digit_inputs

CANVASES = ((8, 8), (28, 28), (280, 280), (56, 1600), (1200, 900), (4096, 4096))
Sizes = tuple[tuple[int, int], ...]


def verify(folder: Path | str, data_root: Path | None = None, canvases: Sizes = CANVASES) -> list[Check]:
    """Repeat every check of the certificate in `folder`, from the files and the checkpoint beside them.

    data_root: folder of MNIST's test set; without it only the shipped sample is used.

    Raises:
        ExportError: there is no certificate, or it cannot be read. Any other fault is a failed Check.
    """
    from export.pipeline import networks_of

    folder = Path(folder)
    found = certificate.models(folder)
    measured, runs = certificate.measure(folder, found)
    measured = certificate.intact(folder) + measured
    sources = [model.metadata["source"] for model in found.values() if "source" in model.metadata]
    if not sources:
        return measured
    try:
        networks = networks_of(load_checkpoint(folder / sources[0]["file"]).model)
    except CheckpointError as error:
        return [*measured, Check("source", sources[0]["file"], False, str(error))]
    return measured + against_source(networks, found, runs, data_root, canvases)


def against_source(
    networks: dict[str, nn.Module], found: Models, runs: dict[str, Run], data_root: Path | None, canvases: Sizes
) -> list[Check]:
    """Check that the files agree with the checkpoint's network on real digits and on drawings of several sizes.

    The network's own error is recorded in the certificate at the export, and used for the tolerance from then on.
    """
    result: list[Check] = []
    for title, images in real_digits(data_root).items():
        batches = np.array_split(images, -(-len(images) // EVALUATION_BATCH))
        result += _agree(networks, found, runs, "digits", title, [[batch] for batch in batches])
    digit = digit_inputs()[6][0, 0]
    for height, width in canvases:
        drawings = [[canvas(digit, height, width, dark)] for dark in (True, False)]
        title = f"canvas {height}×{width}, both polarities"
        for stem in [stem for stem in networks if stem != "digits"]:
            result += _agree(networks, found, runs, stem, title, drawings)
    return result


def _agree(
    networks: dict[str, nn.Module], found: Models, runs: dict[str, Run], stem: str, title: str, cases: list[Arrays]
) -> list[Check]:
    """Compare the files of `stem` that could be loaded with the network in float64."""
    chosen = {name: run for name, run in runs.items() if name.startswith(f"{stem}.")}
    if stem not in found or not chosen:
        return []
    model, network = found[stem], networks[stem]
    tensors = [[torch.from_numpy(array) for array in case] for case in cases]
    flat = FlatNetwork(network, arguments(network, tensors[0][0]))
    ports = [Port(one["name"], one["type"], tuple(one["shape"])) for one in model.metadata["outputs"]]
    axes = [yardstick.axis for yardstick in model.yardsticks]
    evidence = evaluate(flat, tensors, ports, axes, keep_all=True)
    recorded = model.extra.setdefault(title, [one.to_dict() for one in evidence.yardsticks])
    yardsticks = [Yardstick.from_dict(one) for one in recorded]
    expected = evidence.golden.outputs
    return [held(title, name, checks.agreement, run, cases, expected, yardsticks) for name, run in chosen.items()]


def real_digits(data_root: Path | None) -> dict[str, np.ndarray]:
    digits: dict[str, Any] = {"the shipped sample": load_sample(train=False).images.numpy()}
    if data_root is not None:
        with suppress(DataError):  # the report then has no such line
            digits["MNIST's test set"] = load_mnist(train=False, root=data_root, download=False).images.numpy()
    return digits
