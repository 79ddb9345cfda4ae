"""Short trainings over all learning rates × initialisers × places of batch norm, to test the claims about it.

Batch norm is claimed to converge faster, to allow higher learning rates and to be less sensitive to initialisation
(Ioffe & Szegedy 2015, arXiv 1502.03167). `run` takes some minutes; convergence_sweep.json holds its results on MNIST,
from `python -m bnmodel sweep`.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from torch import Generator

from bnmodel import plotting
from bnmodel.data import DataError, Digits
from bnmodel.experiments.convergence import RATES, draw_curve, dress, recipe
from bnmodel.experiments.gradients import LOOKS, PLACES
from bnmodel.io import CHECKSUM_KEYS, atomic_write, checksum, read_checked
from bnmodel.nn.init import INITIALIZERS
from bnmodel.nn.models import SimpleCNNConfig
from bnmodel.training.evaluation import evaluate
from bnmodel.training.recipes import Recipe
from bnmodel.training.trainer import new_network

SWEEP_FILE = Path(__file__).with_name("convergence_sweep.json")
STEPS, EVERY, WATCHED = 400, 40, 2_000  # SGD steps; steps between evaluations; validation digits per evaluation
TARGET = 0.97  # validation accuracy; the first step that reaches it counts
EASIER = 0.95  # a lower one, which enough settings reach at every place to be compared
LEARNED = 0.9  # final accuracy of a network that learns at all
SCALED = ("glorot_normal", "glorot_uniform", "he_normal", "he_uniform")  # initialisers that scale with the layer
SLOW = 0.01  # the lecture's learning rate


@dataclass(frozen=True)
class Cell:
    """One training. `diverged`: the step at which a non-finite loss was found; accuracy and loss are None then."""

    place: str  # of the batch norm
    initializer: str
    rate: float
    accuracy: float | None  # on all validation digits, after the last step
    loss: float | None  # likewise, in nats
    accuracies: tuple[float, ...]  # on the first WATCHED of them, after every EVERY steps
    losses: tuple[float, ...]  # likewise, in nats
    diverged: int | None


@dataclass(frozen=True)
class Sweep:
    """All trainings."""

    command: str  # to reproduce it
    steps: int
    every: int
    seed: int
    cells: tuple[Cell, ...]


def run(
    train: Digits,
    validation: Digits,
    command: str,
    steps: int = STEPS,
    every: int = EVERY,
    seed: int = 0,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> Sweep:
    """Train all combinations of PLACES, INITIALIZERS and RATES for `steps` steps; `on_cell` is called after each."""
    cells = []
    for place, initializer, rate in product(PLACES, INITIALIZERS, RATES):
        cells.append(one(recipe(place, rate, initializer, seed=seed), train, validation, steps, every))
        on_cell(cells[-1])
    return Sweep(command, steps, every, seed, tuple(cells))


def one(recipe: Recipe, train: Digits, validation: Digits, steps: int, every: int) -> Cell:
    """The first `steps` steps of a training by `recipe`."""
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
    return Cell(model.norm, model.initializer, recipe.learning_rate, accuracy, loss, accuracies, losses, diverged)


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
        return Sweep(**content | {"cells": tuple(Cell(**cell) for cell in content["cells"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: missing, damaged, or not a sweep ({error!r}); restore it from the repository, or "
            f"run the sweep again: python -m bnmodel sweep --out {path}"
        ) from error


@dataclass(frozen=True)
class Claims:
    """The claims in numbers, by place of batch norm. Spreads are largest − smallest final accuracy."""

    settings: int  # initialisers except zeros × rates
    learned: dict[str, int]  # number of settings that reach TARGET
    shared: int  # number of settings that reach EASIER at every place
    median_steps: dict[str, float | None]  # to reach EASIER, over the shared settings
    largest_rate: dict[str, float | None]  # at which any initialiser ends at LEARNED or above
    largest_rate_of_all: dict[str, float | None]  # at which all of SCALED do
    best_rate: dict[str, float]  # with the highest median final accuracy over all initialisers except zeros
    spread: dict[str, float]  # over all initialisers except zeros, at the best rate
    spread_with_zeros: dict[str, float]  # over all six, at the best rate
    spread_scaled: dict[str, float]  # over SCALED, at the best rate
    spread_scaled_slow: dict[str, float]  # over SCALED, at SLOW


def claims(sweep: Sweep) -> Claims:
    """Evaluate the claims; a diverged training counts as accuracy 0."""
    names = [name for name in INITIALIZERS if name != "zeros"]
    rates = sorted({cell.rate for cell in sweep.cells})
    settings = list(product(names, rates))
    at = {(cell.place, cell.initializer, cell.rate): cell for cell in sweep.cells}
    final = {key: cell.accuracy or 0.0 for key, cell in at.items()}

    def reached(target: float) -> list[list[int | None]]:
        """Steps to `target`, (3, settings)."""
        return [[steps_to(at[place, name, rate], sweep.every, target) for name, rate in settings] for place in PLACES]

    def at_end(place: str, rate: float, names: Sequence[str]) -> list[float]:
        return [final[place, name, rate] for name in names]

    def largest(place: str, some_or_all: Callable[[Iterable[bool]], bool], names: Sequence[str]) -> float | None:
        good = (rate for rate in rates if some_or_all(accuracy >= LEARNED for accuracy in at_end(place, rate, names)))
        return max(good, default=None)

    def spread(names: Sequence[str], rate: dict[str, float]) -> dict[str, float]:
        accuracies = {place: at_end(place, rate[place], names) for place in PLACES}
        return {place: max(values) - min(values) for place, values in accuracies.items()}

    best = {place: max((median(at_end(place, rate, names)), rate) for rate in rates)[1] for place in PLACES}
    shared = [steps for steps in zip(*reached(EASIER), strict=True) if None not in steps]  # at each of PLACES
    return Claims(
        settings=len(settings),
        learned={p: sum(k is not None for k in steps) for p, steps in zip(PLACES, reached(TARGET), strict=True)},
        shared=len(shared),
        median_steps={p: median(k[n] or 0 for k in shared) if shared else None for n, p in enumerate(PLACES)},
        largest_rate={place: largest(place, any, names) for place in PLACES},
        largest_rate_of_all={place: largest(place, all, SCALED) for place in PLACES},
        best_rate=best,
        spread=spread(names, best),
        spread_with_zeros=spread(list(INITIALIZERS), best),
        spread_scaled=spread(SCALED, best),
        spread_scaled_slow=spread(SCALED, dict.fromkeys(PLACES, SLOW)),
    )


def steps_to(cell: Cell, every: int, target: float = TARGET) -> int | None:
    """The first evaluated step with an accuracy of at least `target`; None: never."""
    return next((every * look for look, accuracy in enumerate(cell.accuracies, 1) if accuracy >= target), None)


TITLES = {
    "none": "without batch norm",
    "before": "batch norm before the activation",
    "after": "batch norm after the activation",
}


@plotting.plot_style()
def figure(sweep: Sweep) -> Figure:
    """Maps of the final accuracies, one per place, and their dependence on the rate."""
    drawn, panels = plotting.new_figure(columns=2, rows=2, width=9.6, height=7.0)
    for axes, place in zip(panels, PLACES, strict=False):
        _map(axes, [cell for cell in sweep.cells if cell.place == place])
        axes.set_title(TITLES[place])
    _against_rate(panels[3], sweep)
    return drawn


@plotting.plot_style()
def rates_figure(sweep: Sweep) -> Figure:
    """The last panel of `figure` alone."""
    drawn, (axes,) = plotting.new_figure(width=3.8, height=3.4)
    _against_rate(axes, sweep)
    return drawn


def strength(cell: Cell) -> float:
    """Opacity of a cell in [0, 0.55], by the logarithm of its error rate; the maximum is at 2 % and below."""
    errors = 1 - (cell.accuracy or 0.0)
    return 0.55 * min(1.0, max(0.0, math.log(0.9 / max(errors, 1e-9)) / math.log(0.9 / 0.02)))


def _map(axes: Axes, cells: Sequence[Cell]) -> None:
    """Accuracies in percent, bold from LEARNED on, × for diverged."""
    names = list(INITIALIZERS)
    for cell in cells:
        column, row = RATES.index(cell.rate), names.index(cell.initializer)
        color = LOOKS[cell.place][0]
        square = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=strength(cell), linewidth=0)
        axes.add_patch(square)
        text = "×" if cell.accuracy is None else f"{100 * cell.accuracy:.1f}"
        weight = "bold" if (cell.accuracy or 0.0) >= LEARNED else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=10, fontweight=weight)
    axes.set(xlim=(-0.5, len(RATES) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="learning rate")
    axes.set_xticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _against_rate(axes: Axes, sweep: Sweep) -> None:
    """Median over all initialisers except zeros, and a band from the worst to the best."""
    for place in PLACES:
        color, line, label = LOOKS[place]
        learning = [cell for cell in sweep.cells if cell.place == place and cell.initializer != "zeros"]
        at = [[cell.accuracy or 0.0 for cell in learning if cell.rate == rate] for rate in RATES]
        axes.plot(RATES, [median(values) for values in at], line, color=color, marker="o", markersize=3, label=label)
        axes.fill_between(RATES, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.12, linewidth=0)
    axes.set(title="five initialisers: median, range", xscale="log", xlabel="learning rate (log)", ylim=(0, 1.02))
    axes.set_ylabel("validation accuracy")
    powers = [rate for rate in RATES if f"{rate:.0e}".startswith("1")]  # the others would run into these
    plotting.ticks(axes.xaxis, powers, [f"{rate:g}" for rate in powers])
    axes.xaxis.set_minor_locator(NullLocator())
    plotting.percent_axis(axes.yaxis)
    axes.legend(loc="lower left")


@plotting.plot_style()
def curves_figure(sweep: Sweep, initializer: str, rate: float) -> Figure:
    """Validation accuracy and loss over the steps of one setting, for each place."""
    drawn, panels = plotting.new_figure(columns=2, width=7.6, height=3.4)
    for cell in sweep.cells:
        if (cell.initializer, cell.rate) == (initializer, rate):
            steps = [sweep.every * look for look in range(1, len(cell.accuracies) + 1)]
            draw_curve(panels, cell.place, steps, cell.accuracies, cell.losses, cell.diverged is not None)
    dress(panels, "step", sweep.steps)
    return drawn
