"""Overfitting: early stopping, and the effect of dropout and weight decay on the generalisation gap.

`run` computes the epoch at which a given patience would have stopped a recorded run. `stream` trains two networks on
few digits, one plain and one with dropout and weight decay. It evaluates both losses in eval mode, since the loss
recorded during training includes dropout and averages over changing weights.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnmodel import plotting
from bnmodel.experiments.convergence import MOST_EPOCHS, Curve, draw_earlier, in_turn, start
from bnmodel.nn.models import SimpleCNNConfig
from bnmodel.training.evaluation import evaluate
from bnmodel.training.history import HISTORY, EarlyStopping, History
from bnmodel.training.recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PATIENCE = 40
RATE = 0.1  # learning rate of the live runs
SKIPPED = 2  # first epochs, whose losses may lie above the figure


@dataclass(frozen=True)
class Stopped:
    """Early stopping applied to a recorded run. Epochs count from 1, losses are in nats."""

    patience: int
    train_losses: np.ndarray  # (E,)
    losses: np.ndarray  # (E,) on the validation digits
    stop: int  # the last epoch that would have been trained
    early: bool  # whether patience ran out
    kept: int  # the epoch whose weights would have been kept
    lowest: int  # the best of all recorded epochs

    @property
    def cost(self) -> float:
        """Validation loss of the kept epoch minus the lowest."""
        return float(self.losses[self.kept - 1] - self.losses[self.lowest - 1])


def run(losses: Sequence[float], patience: int = 20, train_losses: Sequence[float] | None = None) -> Stopped:
    """Apply `EarlyStopping` to a run's validation losses.

    Raises:
        ValueError: no epoch, or a patience below 1.
    """
    if not len(losses) or patience < 1:
        raise ValueError(
            f"expected at least 1 epoch and a patience of at least 1, received {len(losses)} epochs and {patience}"
        )
    stopping, kept, number = EarlyStopping(patience), 1, 0
    for number, loss in enumerate(losses, 1):
        if stopping.improved(loss):
            kept = number
        if stopping.should_stop:
            break
    trained = np.array(losses if train_losses is None else train_losses)
    return Stopped(patience, trained, np.array(losses), number, stopping.should_stop, kept, int(np.argmin(losses)) + 1)


def of_checkpoint(folder: Path | str, patience: int = 20) -> Stopped:
    """`run` for the history.json in a checkpoint folder."""
    epochs = History.read(Path(folder) / HISTORY).epochs
    return run([epoch.validation_loss for epoch in epochs], patience, [epoch.train_loss for epoch in epochs])


@plotting.plot_style()
def figure(result: Stopped) -> Figure:
    """Training and validation loss, and the validation loss near its minimum; epochs after the stop are pale."""
    drawn, (whole, near) = plotting.new_figure(columns=2, width=7.6, height=3.6)
    _loss(whole, result.train_losses, result.stop, "--", plotting.OLIVE, "training")
    for axes in (whole, near):
        _loss(axes, result.losses, result.stop, "-", plotting.ROSE, "validation")
        axes.axvspan(result.kept, result.stop, color=plotting.INK, alpha=0.1, linewidth=0)
        axes.axvline(result.stop, color=plotting.INK, linestyle=":", label=f"stop after epoch {result.stop}")
        axes.set(xlabel="epoch", xlim=(0, len(result.losses) + 1))
    whole.set(title="the whole training", ylabel="loss (nats, log)", yscale="log")
    plotting.log_ticks(whole.yaxis, (1, 2, 3, 5))
    lowest, kept = result.losses[result.lowest - 1], result.losses[result.kept - 1]
    near.plot([result.kept], [kept], "o", color=plotting.ROSE, markersize=8, label=f"kept: epoch {result.kept}")
    if result.lowest != result.kept:
        label = f"lowest of all: epoch {result.lowest}"
        near.plot([result.lowest], [lowest], "D", color=plotting.INK, markersize=6, label=label, clip_on=False)
    near.set(
        title="near the lowest", ylabel="validation loss (nats)", ylim=(0.95 * lowest, max(2 * lowest, 1.15 * kept))
    )
    plotting.legend(drawn, whole, near)
    return drawn


def _loss(axes: Axes, losses: np.ndarray, stop: int, line: str, color: str, label: str) -> None:
    numbers = np.arange(1, len(losses) + 1)
    axes.plot(numbers[stop - 1 :], losses[stop - 1 :], line, color=color, alpha=0.4, linewidth=1.2)
    axes.plot(numbers[:stop], losses[:stop], line, color=color, label=label)


@dataclass(frozen=True)
class Regularised:
    """The state of two runs: "plain", and "regularised" with dropout and weight decay."""

    dropout: float
    weight_decay: float
    epochs: int  # requested
    seed: int
    curves: tuple[Curve, ...]
    train_losses: tuple[tuple[float, ...], ...]  # of both, in eval mode at the end of each epoch, in nats

    @property
    def gaps(self) -> list[tuple[float, ...]]:
        """Validation loss − training loss of both, per epoch, in nats."""
        pairs = zip(self.curves, self.train_losses, strict=True)
        return [tuple(e.validation_loss - loss for e, loss in zip(c.epochs, of, strict=True)) for c, of in pairs]


def recipe(name: str, dropout: float, weight_decay: float, epochs: int = 20, seed: int = 0) -> Recipe:
    """The lecture's recipe with a learning rate at which it soon overfits a few digits.

    Raises:
        ValueError: a dropout outside [0, 1), or a weight decay below 0.
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay: expected a number ≥ 0, received {weight_decay}")
    model = SimpleCNNConfig(dropout=dropout)
    return Recipe(name, epochs, epochs, learning_rate=RATE, weight_decay=weight_decay, seed=seed, model=model)


def stream(
    dropout: float = 0.5, weight_decay: float = 0.001, epochs: int = 20, seed: int = 0
) -> Generator[Regularised]:
    """Yield both runs on the shipped sample; closing the generator ends them.

    Args:
        dropout: in [0, 1).
        weight_decay: ≥ 0, λ in w ← w − η(∇L + λw).
        epochs: 1 … MOST_EPOCHS.

    Raises:
        ValueError: an argument outside its bounds, at the first `next`.
    """
    if not 1 <= epochs <= MOST_EPOCHS:
        raise ValueError(f"epochs: expected 1 … {MOST_EPOCHS}, received {epochs}")
    of_name = {"plain": (0.0, 0.0), "regularised": (dropout, weight_decay)}
    trainings = {name: start(recipe(name, *values, epochs, seed)) for name, values in of_name.items()}
    train_losses: dict[str, tuple[float, ...]] = dict.fromkeys(trainings, ())
    for curves in in_turn(trainings):
        for curve in curves:
            if len(curve.epochs) > len(train_losses[curve.name]):
                training = trainings[curve.name]
                train_losses[curve.name] += (evaluate(training.model, training.train)[0],)
        yield Regularised(dropout, weight_decay, epochs, seed, curves, tuple(train_losses.values()))


def regularise(dropout: float = 0.5, weight_decay: float = 0.001, epochs: int = 20, seed: int = 0) -> Regularised:
    """The last result of `stream`."""
    *_, last = stream(dropout, weight_decay, epochs, seed)
    return last


@plotting.plot_style()
def gap_figure(result: Regularised, earlier: Sequence[Regularised] = ()) -> Figure:
    """A panel per network: its two losses, and the gap between them shaded; `earlier` runs pale and numbered."""
    drawn, panels = plotting.new_figure(columns=2, width=7.6, height=3.4)
    titles = ("without either", f"dropout {result.dropout:g}, weight decay {result.weight_decay:g}")
    validations = [[epoch.validation_loss for epoch in curve.epochs] for curve in result.curves]
    skipped = SKIPPED if min(map(len, validations)) > SKIPPED else 0
    top = 1.1 * max((loss for losses in (*validations, *result.train_losses) for loss in losses[skipped:]), default=1.0)
    for number, run in enumerate(earlier, 1):
        for axes, curve, train in zip(panels, run.curves, run.train_losses, strict=True):
            draw_earlier(axes, number, train, plotting.OLIVE, "--", "training loss")
            validation = [epoch.validation_loss for epoch in curve.epochs]
            draw_earlier(axes, number, validation, plotting.ROSE, "-", "validation loss")
    for axes, title, validation, train in zip(panels, titles, validations, result.train_losses, strict=True):
        numbers = range(1, len(train) + 1)
        axes.plot(numbers, train, "--", color=plotting.OLIVE, marker="o", markersize=3, label="training loss")
        axes.plot(numbers, validation, "-", color=plotting.ROSE, marker="o", markersize=3, label="validation loss")
        axes.fill_between(numbers, train, validation, color=plotting.INK, alpha=0.12, linewidth=0, label="gap")
        axes.set(title=title, xlabel="epoch", ylabel="loss (nats), eval mode", xlim=(0.5, result.epochs + 0.5))
        axes.set_ylim(0, top)
        plotting.whole_numbers(axes.xaxis)
    plotting.legend(drawn, panels[0])
    return drawn
