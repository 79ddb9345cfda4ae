"""Many short trainings: every learning rate × initialiser × place of the batch norm, and what they say of the claims.

The lecture claims that with batch norm a network converges faster, stands higher learning rates and cares less about
its initialiser (Ioffe & Szegedy 2015, arXiv 1502.03167). `run` measures, for some minutes; what it found on MNIST is
shipped beside this file, made by `python -m bnmodel sweep`.
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
STEPS, EVERY, WATCHED = 400, 40, 2_000  # of SGD; between two looks at the accuracy; digits looked at
TARGET = 0.97  # validation accuracy whose first time counts
EASIER = 0.95  # … that enough settings reach at every place to compare them
LEARNED = 0.9  # … that shows that a network learns at all
SCALED = ("glorot_normal", "glorot_uniform", "he_normal", "he_uniform")  # by the size of the layer
SLOW = 0.01  # the lecture's learning rate


@dataclass(frozen=True)
class Cell:
    """One training. `diverged`: the step at which its loss was found not finite; then there is no accuracy or loss."""

    place: str  # of the batch norm
    initializer: str
    rate: float
    accuracy: float | None  # on all validation digits, after the last step
    loss: float | None  # likewise, in nats
    accuracies: tuple[float, ...]  # on the first WATCHED of them, after every so many steps
    losses: tuple[float, ...]  # likewise, in nats
    diverged: int | None


@dataclass(frozen=True)
class Sweep:
    """All trainings, of `steps` steps each."""

    command: str  # that made it
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
    """Train each combination of PLACES, INITIALIZERS and RATES for `steps` steps of SGD; `on_cell` hears of each."""
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
    """Each look is a loss and an accuracy; they are rounded to what a few thousand digits can tell apart."""
    model = recipe.model
    assert isinstance(model, SimpleCNNConfig)
    assert model.initializer is not None
    loss, accuracy = (float(f"{last[0]:.4g}"), round(last[1], 5)) if last else (None, None)
    accuracies = tuple(round(accuracy, 4) for _, accuracy in looks)
    losses = tuple(float(f"{loss:.4g}") for loss, _ in looks)
    return Cell(model.norm, model.initializer, recipe.learning_rate, accuracy, loss, accuracies, losses, diverged)


def _batches(train: Digits, steps: int, recipe: Recipe) -> Iterator[Digits]:
    """`steps` batches in random order; no digit comes again before all have had their turn."""
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
    """What `write` wrote.

    Raises:
        DataError: the file is missing, damaged, or was changed since it was written.
    """
    try:
        content = read_checked(path)
        return Sweep(**content | {"cells": tuple(Cell(**cell) for cell in content["cells"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: missing, damaged, or not what a sweep found ({error!r}); restore it from the repository, or "
            f"measure again: python -m bnmodel sweep --out {path}"
        ) from error


@dataclass(frozen=True)
class Claims:
    """The lecture's claims as numbers, each by place of the norm. Spreads are largest − smallest final accuracy."""

    settings: int  # initialiser but zeros × rate
    learned: dict[str, int]  # in how many of them TARGET is reached within the steps
    shared: int  # in how many EASIER is reached at every place
    median_steps: dict[str, float | None]  # until EASIER, over the shared ones
    largest_rate: dict[str, float | None]  # with which some initialiser comes to LEARNED at the end
    largest_rate_of_all: dict[str, float | None]  # … each of SCALED
    best_rate: dict[str, float]  # of the highest median final accuracy over all initialisers but zeros
    spread: dict[str, float]  # over all initialisers but zeros, at the best rate
    spread_with_zeros: dict[str, float]  # over all six, at the best rate
    spread_scaled: dict[str, float]  # over SCALED, at the best rate
    spread_scaled_slow: dict[str, float]  # over SCALED, at SLOW


def claims(sweep: Sweep) -> Claims:
    """What the cells say of them; a diverged training has accuracy 0."""
    names = [name for name in INITIALIZERS if name != "zeros"]
    rates = sorted({cell.rate for cell in sweep.cells})
    settings = list(product(names, rates))
    at = {(cell.place, cell.initializer, cell.rate): cell for cell in sweep.cells}
    final = {key: cell.accuracy or 0.0 for key, cell in at.items()}

    def reached(target: float) -> list[list[int | None]]:
        """(3, settings) steps"""
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
    """After how many steps `target` of the watched digits were first read right; None: never."""
    return next((every * look for look, accuracy in enumerate(cell.accuracies, 1) if accuracy >= target), None)


TITLES = {
    "none": "without batch norm",
    "before": "batch norm before the activation",
    "after": "batch norm after the activation",
}


@plotting.plot_style()
def figure(sweep: Sweep) -> Figure:
    """Final accuracies, a map for each place of the norm, and how they depend on the rate."""
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
    """How much colour a cell of a map gets, in [0, 0.55]: as the logarithm of its errors, most at 2 % and fewer."""
    errors = 1 - (cell.accuracy or 0.0)
    return 0.55 * min(1.0, max(0.0, math.log(0.9 / max(errors, 1e-9)) / math.log(0.9 / 0.02)))


def _map(axes: Axes, cells: Sequence[Cell]) -> None:
    """Percent in every cell, bold where it learned, × where it diverged."""
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
    """The median over the initialisers but zeros, and a band from the worst of them to the best."""
    for place in PLACES:
        color, line, label = LOOKS[place]
        learning = [cell for cell in sweep.cells if cell.place == place and cell.initializer != "zeros"]
        at = [[cell.accuracy or 0.0 for cell in learning if cell.rate == rate] for rate in RATES]
        axes.plot(RATES, [median(values) for values in at], line, color=color, marker="o", markersize=3, label=label)
        axes.fill_between(RATES, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.12, linewidth=0)
    axes.set(title="five initialisers: median, range", xscale="log", xlabel="learning rate (log)", ylim=(0, 1.02))
    axes.set_ylabel("validation accuracy")
    plotting.ticks(axes.xaxis, RATES, [f"{rate:g}" for rate in RATES])
    axes.xaxis.set_minor_locator(NullLocator())
    plotting.percent_axis(axes.yaxis)
    axes.legend(loc="lower left")


@plotting.plot_style()
def curves_figure(sweep: Sweep, initializer: str, rate: float) -> Figure:
    """One setting's validation accuracy and loss against the steps, for each place of the norm."""
    drawn, panels = plotting.new_figure(columns=2, width=7.6, height=3.4)
    for cell in sweep.cells:
        if (cell.initializer, cell.rate) == (initializer, rate):
            steps = [sweep.every * look for look in range(1, len(cell.accuracies) + 1)]
            draw_curve(panels, cell.place, steps, cell.accuracies, cell.losses, cell.diverged is not None)
    dress(panels, "step", sweep.steps)
    return drawn
