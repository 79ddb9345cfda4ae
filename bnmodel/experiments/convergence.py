"""Train three networks that differ only in batch norm: none, before or after the activation.

Initial weights and the order of the digits are the same, and dropout is off. The networks take turns, one epoch at a
time. If the loss of one becomes infinite or NaN, it stops and the others continue.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bnmodel import plotting
from bnmodel.data import load_sample
from bnmodel.experiments.gradients import POSITIONS, STYLES
from bnmodel.nn.models import SimpleCNNConfig
from bnmodel.training.history import Epoch
from bnmodel.training.recipes import Recipe
from bnmodel.training.trainer import Training, TrainingError, new_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
MOST_EPOCHS = 30
MOST_LOSS = 10.0  # nats, the upper limit of figures; guessing costs ln 10 = 2.3


@dataclass(frozen=True)
class Curve:
    """The state of one run."""

    name: str
    epochs: tuple[Epoch, ...] = ()
    diverged: int | None = None  # the last epoch, if its loss was not finite


@dataclass(frozen=True)
class Convergence:
    """The state of the three runs, in the order of POSITIONS."""

    rate: float
    initializer: str
    epochs: int  # requested
    seed: int
    curves: tuple[Curve, ...]


def recipe(position: str, rate: float = 0.1, initializer: str = "he_normal", epochs: int = 10, seed: int = 0) -> Recipe:
    """The lecture's recipe with batch norm at `position`, without dropout and early stopping.

    Raises:
        ValueError: an unknown position or initialiser, a rate that is not positive, or less than one epoch.
    """
    model = SimpleCNNConfig(norm=position, dropout=0.0, initializer=initializer)
    return Recipe(f"norm {position}", epochs, patience=epochs, learning_rate=rate, seed=seed, model=model)


def start(recipe: Recipe) -> Training:
    """A run on the shipped sample, with 1,000 digits to train and 1,000 to validate, on the CPU."""
    model, generator = new_network(recipe)
    return Training(model, load_sample(train=True), load_sample(train=False), recipe, "cpu", generator)


def in_turn(trainings: Mapping[str, Training]) -> Generator[tuple[Curve, ...]]:
    """Train one epoch each in turn; yield all curves before the first and after every epoch.

    Closing the generator ends the runs.
    """
    curves = {name: Curve(name) for name in trainings}
    running = {name: training.epochs() for name, training in trainings.items()}
    yield tuple(curves.values())
    while running:
        for name in list(running):
            curve = curves[name]
            try:
                curves[name] = replace(curve, epochs=(*curve.epochs, next(running[name])))
            except StopIteration:
                del running[name]
                continue
            except TrainingError:
                curves[name] = replace(curve, diverged=len(curve.epochs) + 1)
                del running[name]
            yield tuple(curves.values())


def stream(
    rate: float = 0.1, initializer: str = "he_normal", epochs: int = 10, seed: int = 0
) -> Generator[Convergence]:
    """Yield the three runs on the shipped sample before the first and after every epoch.

    Args:
        rate: learning rate of plain SGD, > 0.
        initializer: a name in INITIALIZERS; random_normal has std 1.
        epochs: 1 … MOST_EPOCHS.

    Raises:
        ValueError: an argument outside its bounds, at the first `next`.
    """
    if not 1 <= epochs <= MOST_EPOCHS:
        raise ValueError(f"epochs: expected 1 … {MOST_EPOCHS}, received {epochs}")
    trainings = {position: start(recipe(position, rate, initializer, epochs, seed)) for position in POSITIONS}
    for curves in in_turn(trainings):
        yield Convergence(rate, initializer, epochs, seed, curves)


def run(rate: float = 0.1, initializer: str = "he_normal", epochs: int = 10, seed: int = 0) -> Convergence:
    """The last result of `stream`."""
    *_, last = stream(rate, initializer, epochs, seed)
    return last


@plotting.plot_style()
def figure(result: Convergence, earlier: Sequence[Convergence] = ()) -> Figure:
    """Validation accuracy and loss per epoch; `earlier` runs are pale and numbered."""
    drawn, panels = plotting.new_figure(columns=2, width=7.6, height=3.4)
    for number, run in enumerate((*earlier, result), 1):
        for curve in run.curves:
            numbers = [epoch.epoch for epoch in curve.epochs]
            accuracies = [epoch.validation_accuracy for epoch in curve.epochs]
            losses = [epoch.validation_loss for epoch in curve.epochs]
            if run is result:
                draw_curve(panels, curve.name, numbers, accuracies, losses, curve.diverged is not None)
            else:
                for axes, values in zip(panels, (accuracies, losses), strict=True):
                    draw_earlier(axes, number, values, *STYLES[curve.name])
    label_axes(panels, "epoch", max(run.epochs for run in (*earlier, result)))
    plotting.legend(drawn, panels[0])
    return drawn


def draw_earlier(axes: Axes, run: int, values: Sequence[float], color: str, line: str, label: str) -> None:
    """Draw the curve of an earlier run: pale, not in the legend, with the number of the run at its end."""
    epochs = range(1, len(values) + 1)
    axes.plot(epochs, values, line, color=color, alpha=0.45, linewidth=1.2, label=f"_run {run}, {label}")
    if values:
        at = len(values), values[-1]
        axes.annotate(str(run), at, xytext=(3, -3), textcoords="offset points", color=color, annotation_clip=True)


def draw_curve(
    panels: Sequence[Axes],
    position: str,
    numbers: Sequence[int],
    accuracies: Sequence[float],
    losses: Sequence[float],
    diverged: bool,
) -> None:
    """Plot accuracy and loss of one network in the style of its position, with a cross where it diverged."""
    color, line, label = STYLES[position]
    for axes, values in zip(panels, (accuracies, losses), strict=True):
        axes.plot(numbers, values, line, color=color, marker="o", markersize=3, label=label)
        if diverged:
            axes.plot(numbers[-1:] or [0], values[-1:] or [0.5], "x", color=color, markersize=10, mew=2.5)


def label_axes(panels: Sequence[Axes], unit: str, last: int) -> None:
    """Titles and scales of the panels; `last`: the upper limit of the `unit` axis."""
    accuracy, loss = panels
    accuracy.set(title="accuracy", ylabel="validation accuracy", ylim=(0, 1.02))
    plotting.percent_axis(accuracy.yaxis)
    loss.set(title="loss", ylabel="validation loss (nats, log)", yscale="log")
    low, high = loss.get_ylim()
    loss.set_ylim(min(low, 0.3), min(max(high, 3.0), MOST_LOSS))
    plotting.log_ticks(loss.yaxis, (1, 3))
    for axes in panels:
        axes.set(xlabel=unit, xlim=(0, 1.03 * last))
        plotting.whole_numbers(axes.xaxis)
