"""The experiments by name, for the command line: figures and numbers for one digit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bnmodel import plotting
from bnmodel.data.pictures import SHORTEST_SIDE, to_rgba
from bnmodel.data.preprocessing import Sketch
from bnmodel.experiments import (
    batch_spread,
    convergence,
    convergence_sweep,
    corruption,
    early_stopping,
    faults,
    forgotten_eval,
    gradients,
    initialization,
    input_normalization,
    modes,
    running_statistics,
    worked_example,
)
from bnmodel.experiments.other_samples import other_samples
from bnmodel.io import atomic_write, without_infinities
from bnmodel.training.checkpoint import load_checkpoint
from bnmodel.training.history import HISTORY, History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Run = Callable[[nn.Module, Tensor, Path], Any]  # network, digit (28, 28), checkpoint folder → result


def _others(digit: Tensor) -> Tensor:
    return other_samples("random", 31, 0, digit)


def _faults(model: nn.Module, _: Tensor, folder: Path) -> list[faults.Fault]:
    history = History.read(folder / HISTORY)
    return [faults.best_by_reference(history), faults.statistics_not_saved(model), faults.momentum_inverted(model)]


EXPERIMENTS: dict[str, tuple[Run, Callable[[Any], Figure]]] = {
    "modes": (lambda model, digit, _: modes.compare(model, digit, _others(digit)), modes.figure),
    "worked_example": (lambda model, digit, _: worked_example.run(model, digit, _others(digit)), worked_example.figure),
    "batch_spread": (lambda model, digit, _: batch_spread.run(model, digit), batch_spread.figure),
    "running_statistics": (lambda model, digit, _: running_statistics.run(model, digit), running_statistics.figure),
    "forgotten_eval": (lambda model, digit, _: forgotten_eval.run(model, digit), forgotten_eval.figure),
    "faults": (_faults, faults.figure),
    "corruption": (lambda model, digit, _: corruption.run(model, digit), corruption.figure),
    # independent of the digit
    "initialization": (lambda *_: initialization.run(), initialization.figure),
    "initialization_depth": (lambda *_: initialization.stack(), initialization.stack_figure),
    "input_normalization": (lambda *_: input_normalization.run(), input_normalization.figure),
    "gradients": (lambda *_: gradients.run(), gradients.figure),
    "convergence": (lambda *_: convergence.run(), convergence.figure),
    "convergence_sweep": (lambda *_: convergence_sweep.read(), convergence_sweep.figure),
    "early_stopping": (lambda _, __, folder: early_stopping.of_checkpoint(folder), early_stopping.figure),
}


def write(name: str, folder: Path, digit: Tensor, out: Path) -> list[Path]:
    """Run the experiment called `name` with its defaults and write `out`/NAME.png, .svg and .json (null for NaN).

    Raises:
        ValueError: there is no such experiment.
        CheckpointError: the checkpoint in `folder` is missing or damaged.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: expected one of {', '.join(EXPERIMENTS)}, received {name!r}")
    run, figure = EXPERIMENTS[name]
    result = run(load_checkpoint(folder).model, digit, folder)
    drawn = figure(result)
    paths = [out / f"{name}.{ending}" for ending in ("png", "svg", "json")]
    for path in paths[:2]:
        plotting.save(drawn, path)
    with atomic_write(paths[2]) as temporary:
        text = json.dumps(without_infinities(plain(result)), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return paths


def plain(result: Any) -> Any:
    """Convert a result to JSON types: arrays become lists."""
    if dataclasses.is_dataclass(result):
        return {field.name: plain(getattr(result, field.name)) for field in dataclasses.fields(result)}
    if isinstance(result, dict):
        return {key: plain(value) for key, value in result.items()}
    if isinstance(result, (list, tuple)):
        return [plain(value) for value in result]
    return result.tolist() if isinstance(result, np.ndarray) else result


def read_digit(path: Path) -> Tensor:
    """Preprocess an image file of a digit → float32 (28, 28).

    Raises:
        ValueError: not an image, or a blank one.
    """
    try:
        with Image.open(path) as image:
            canvas = to_rgba(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected an image of a digit, PNG for example ({error})") from error
    if min(canvas.shape[:2]) < SHORTEST_SIDE:
        height, width = canvas.shape[:2]
        raise ValueError(
            f"{path}: expected sides of at least {SHORTEST_SIDE} pixels, received {width}×{height}; enlarge it"
        )
    digit: Tensor
    digit, ink = Sketch()(torch.from_numpy(canvas))
    if not ink > 0:
        raise ValueError(f"{path}: blank, nothing stands out from the background; draw a digit on it")
    return digit
