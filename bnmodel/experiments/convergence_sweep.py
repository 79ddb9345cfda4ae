"""Short runs over all learning rates × initialisers × positions of batch norm, to test the claims about it.

Batch norm is claimed to converge faster, to allow higher learning rates and to be less sensitive to initialisation
(Ioffe & Szegedy 2015, arXiv 1502.03167). Each setting is trained with several seeds. `run` takes about an hour;
convergence_sweep.json holds its results on MNIST, from `python -m bnmodel sweep`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product, zip_longest
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator

from bnmodel import plotting
from bnmodel.data import DataError, Digits
from bnmodel.experiments.convergence import RATES, draw_curve, label_axes, recipe
from bnmodel.experiments.gradients import POSITIONS, STYLES
from bnmodel.io import CHECKSUM_KEYS, atomic_write, checksum, read_checked
from bnmodel.nn.init import INITIALIZERS
from bnmodel.nn.models import SimpleCNNConfig
from bnmodel.training.evaluation import evaluate
from bnmodel.training.recipes import Recipe
from bnmodel.training.trainer import new_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SWEEP_FILE = Path(__file__).with_name("convergence_sweep.json")
STEPS, EVERY, WATCHED = 400, 40, 2_000  # SGD steps; steps between evaluations; validation digits per evaluation
SEEDS = 5
SETTINGS = len(POSITIONS) * len(INITIALIZERS) * len(RATES)
LEARNED = 0.9  # final accuracy of a network that learns at all; bold in the maps


@dataclass(frozen=True)
class Cell:
    """One run. `diverged`: the step at which the loss was not finite; accuracy and loss are then None."""

    seed: int  # of the initial weights and of the order of the digits
    position: str  # of the batch norm
    initializer: str
    rate: float
    accuracy: float | None  # on all validation digits, after the last step
    loss: float | None  # likewise, in nats
    accuracies: tuple[float, ...]  # on the first WATCHED of them, after every EVERY steps
    losses: tuple[float, ...]  # likewise, in nats
    diverged: int | None


@dataclass(frozen=True)
class Sweep:
    """All runs."""

    command: str  # to reproduce it
    steps: int
    every: int
    seeds: int  # 0 … seeds − 1
    cells: tuple[Cell, ...]


def run(
    train: Digits,
    validation: Digits,
    command: str,
    steps: int = STEPS,
    every: int = EVERY,
    seeds: int = SEEDS,
    known: Sequence[Cell] = (),
    on_cell: Callable[[Sweep], None] = lambda so_far: None,
) -> Sweep:
    """Train all combinations of seeds, POSITIONS, INITIALIZERS and RATES for `steps` steps.

    Args:
        known: cells of an interrupted sweep, which are not trained again.
        on_cell: called with the sweep so far after each run.

    Raises:
        ValueError: `steps`, `every` or `seeds` below 1.
    """
    for name, value in (("steps", steps), ("every", every), ("seeds", seeds)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, received {value}")
    sweep = Sweep(command, steps, every, seeds, tuple(known))
    done = {(cell.seed, cell.position, cell.initializer, cell.rate) for cell in known}
    for seed, position, initializer, rate in product(range(seeds), POSITIONS, INITIALIZERS, RATES):
        if (seed, position, initializer, rate) not in done:
            cell = one(recipe(position, rate, initializer, seed=seed), train, validation, steps, every)
            sweep = replace(sweep, cells=(*sweep.cells, cell))
            on_cell(sweep)
    return sweep


def one(recipe: Recipe, train: Digits, validation: Digits, steps: int, every: int) -> Cell:
    """The first `steps` steps of a run by `recipe`."""
    model, _ = new_network(recipe)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    looks: list[tuple[float, float]] = []
    for step, batch in enumerate(_batches(train, steps, recipe), 1):
        loss = F.nll_loss(model(batch.images), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % every == 0:
            looks.append(evaluate(model, validation[slice(WATCHED)]))
            if not math.isfinite(looks[-1][0]):
                return _cell(recipe, looks[:-1], None, step)
    last = evaluate(model, validation)
    return _cell(recipe, looks, last, None) if math.isfinite(last[0]) else _cell(recipe, looks, None, steps)


def _cell(
    recipe: Recipe, looks: list[tuple[float, float]], last: tuple[float, float] | None, diverged: int | None
) -> Cell:
    """A cell from its evaluations (loss, accuracy), rounded to the resolution of a few thousand digits."""
    model = recipe.model
    assert isinstance(model, SimpleCNNConfig)
    assert model.initializer is not None
    loss, accuracy = (float(f"{last[0]:.4g}"), round(last[1], 5)) if last else (None, None)
    accuracies = tuple(round(accuracy, 4) for _, accuracy in looks)
    losses = tuple(float(f"{loss:.4g}") for loss, _ in looks)
    setting = recipe.seed, model.norm, model.initializer, recipe.learning_rate
    return Cell(*setting, accuracy, loss, accuracies, losses, diverged)


def _batches(train: Digits, steps: int, recipe: Recipe) -> Iterator[Digits]:
    """`steps` batches in random order, without repetition within an epoch."""
    generator = Generator().manual_seed(recipe.seed)
    done = 0
    while done < steps:
        for index in torch.randperm(len(train), generator=generator).split(recipe.batch_size)[: steps - done]:
            yield train[index]
            done += 1


def write(sweep: Sweep, path: Path = SWEEP_FILE) -> None:
    """One line per cell, with a checksum."""
    content = asdict(sweep)
    head = {name: value for name, value in content.items() if name != "cells"} | {CHECKSUM_KEYS[0]: checksum(content)}
    lines = ",\n".join(json.dumps(asdict(cell)) for cell in sweep.cells)
    with atomic_write(path) as temporary:
        temporary.write_text(f'{json.dumps(head)[:-1]}, "cells": [\n{lines}\n]}}\n')


def read(path: Path = SWEEP_FILE) -> Sweep:
    """Read a file written by `write`.

    Raises:
        DataError: the file is missing, damaged, or changed since it was written.
    """
    try:
        content = read_checked(path)
        lists = ("accuracies", "losses")
        cells = (Cell(**cell | {name: tuple(cell[name]) for name in lists}) for cell in content["cells"])
        return Sweep(**content | {"cells": tuple(cells)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: missing, damaged, or not a sweep ({error!r}); restore it from the repository, or "
            f"run the sweep again: python -m bnmodel sweep --out {path}"
        ) from error


def resumed(path: Path, command: str) -> tuple[Cell, ...]:
    """The cells of an interrupted sweep by the same command; none if there is no file.

    Raises:
        DataError: the file is damaged, or holds the sweep of another command.
    """
    if not path.exists():
        return ()
    found = read(path)
    if found.command != command:
        raise DataError(f"{path}: expected the sweep of {command}, received that of {found.command}; use another --out")
    return found.cells


Setting = tuple[str, str, float]  # position, initialiser, rate


def by_setting(sweep: Sweep) -> dict[Setting, list[Cell]]:
    """The cells of every setting, one per seed."""
    found: dict[Setting, list[Cell]] = {}
    for cell in sweep.cells:
        found.setdefault((cell.position, cell.initializer, cell.rate), []).append(cell)
    return found


def mean_accuracy(cells: Sequence[Cell]) -> float | None:
    """Mean final accuracy over the seeds that did not diverge; None if most did."""
    accuracies = [cell.accuracy for cell in cells if cell.accuracy is not None]
    return fmean(accuracies) if 2 * len(accuracies) > len(cells) else None


TITLES = {
    "none": "without batch norm",
    "before": "batch norm before the activation",
    "after": "batch norm after the activation",
}


@plotting.plot_style()
def figure(sweep: Sweep) -> Figure:
    """Maps of the mean final accuracies, one per position, and their dependence on the rate."""
    drawn, panels = plotting.new_figure(columns=2, rows=2, width=9.6, height=7.0)
    settings = by_setting(sweep)
    for axes, position in zip(panels, POSITIONS, strict=False):
        _map(axes, position, settings)
        axes.set_title(TITLES[position])
    _against_rate(panels[3], sweep)
    plotting.legend(drawn, panels[3])
    return drawn


@plotting.plot_style()
def rates_figure(sweep: Sweep) -> Figure:
    """The last panel of `figure` alone."""
    drawn, (axes,) = plotting.new_figure(width=3.8, height=3.4)
    _against_rate(axes, sweep)
    plotting.legend(drawn, axes)
    return drawn


def strength(accuracy: float | None) -> float:
    """Opacity in [0, 0.55] of an accuracy, by the logarithm of the error rate; the maximum is at 2% and below."""
    errors = 1 - (accuracy or 0.0)
    return 0.55 * min(1.0, max(0.0, math.log(0.9 / max(errors, 1e-9)) / math.log(0.9 / 0.02)))


def diverged(cells: Sequence[Cell]) -> str:
    """“2 of 5 ×” if the mean accuracy leaves out seeds that diverged, else ""."""
    count = sum(cell.accuracy is None for cell in cells)
    return f"{count} of {len(cells)} ×" if count and mean_accuracy(cells) is not None else ""


def _map(axes: Axes, position: str, settings: Mapping[Setting, Sequence[Cell]]) -> None:
    """Accuracies in percent, bold from LEARNED on, × for diverged."""
    from matplotlib.patches import Rectangle  # slow to import

    names = list(INITIALIZERS)
    for (row, name), (column, rate) in product(enumerate(names), enumerate(RATES)):
        cells = settings[position, name, rate]
        accuracy = mean_accuracy(cells)
        color = STYLES[position][0]
        square = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=strength(accuracy), linewidth=0)
        axes.add_patch(square)
        text = "×" if accuracy is None else f"{100 * accuracy:.1f}"
        weight = "bold" if (accuracy or 0.0) >= LEARNED else "normal"
        up = 0.12 if diverged(cells) else 0.0
        axes.text(column, row - up, text, ha="center", va="center", fontsize=10, fontweight=weight)
        axes.text(column, row + 0.3, diverged(cells), ha="center", va="center", fontsize=6.5)
    axes.set(xlim=(-0.5, len(RATES) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="learning rate")
    axes.set_xticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _against_rate(axes: Axes, sweep: Sweep) -> None:
    """Median over all seeds and initialisers except zeros, and a band from the worst to the best."""
    for position in POSITIONS:
        color, line, label = STYLES[position]
        learning = [cell for cell in sweep.cells if cell.position == position and cell.initializer != "zeros"]
        at = [[cell.accuracy or 0.0 for cell in learning if cell.rate == rate] for rate in RATES]
        axes.plot(RATES, [median(values) for values in at], line, color=color, marker="o", markersize=3, label=label)
        axes.fill_between(RATES, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.12, linewidth=0)
    title = "median and range"
    axes.set(title=title, xscale="log", xlabel="learning rate (log)", ylim=(0, 1.02))
    axes.set_ylabel("validation accuracy")
    powers = [rate for rate in RATES if f"{rate:.0e}".startswith("1")]  # the others would run into these
    plotting.ticks(axes.xaxis, powers, [f"{rate:g}" for rate in powers])
    axes.xaxis.minorticks_off()
    plotting.percent_axis(axes.yaxis)


@plotting.plot_style()
def curves_figure(sweep: Sweep, initializer: str, rate: float) -> Figure:
    """Validation accuracy and loss over the steps of one setting, per position: median and range over the seeds."""
    drawn, panels = plotting.new_figure(columns=2, width=7.6, height=3.4)
    settings = by_setting(sweep)
    for position in POSITIONS:
        cells = settings[position, initializer, rate]
        accuracies = _per_evaluation([cell.accuracies for cell in cells])
        losses = _per_evaluation([cell.losses for cell in cells])
        steps = [sweep.every * look for look in range(1, len(accuracies) + 1)]
        for axes, values in zip(panels, (accuracies, losses), strict=True):
            low, high = [min(v) for v in values], [max(v) for v in values]
            axes.fill_between(steps, low, high, color=STYLES[position][0], alpha=0.15, linewidth=0)
        medians = [median(values) for values in accuracies], [median(values) for values in losses]
        draw_curve(panels, position, steps, *medians, diverged=mean_accuracy(cells) is None)
    label_axes(panels, "step", sweep.steps)
    plotting.legend(drawn, panels[0])
    return drawn


def _per_evaluation(of_seeds: Sequence[Sequence[float]]) -> list[list[float]]:
    """The values of the seeds that have not diverged, for each evaluation at which these are most of the seeds."""
    found = [[value for value in values if value is not None] for values in zip_longest(*of_seeds)]
    return [values for values in found if 2 * len(values) > len(of_seeds)]
