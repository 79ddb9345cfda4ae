"""Three common faults of batch-norm code, each with the wrong and the right curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from bnmodel import plotting
from bnmodel.experiments.batch_statistics import custom_batchnorms, named_norm
from bnmodel.experiments.cost import accuracy
from bnmodel.experiments.running_statistics import averages, batch_statistics, running_average, with_statistics
from bnmodel.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Fault:
    """A wrong and a right curve over the same axis."""

    name: str
    x_label: str
    y_label: str
    x: np.ndarray  # (P,)
    wrong: np.ndarray  # (P,)
    right: np.ndarray  # (P,)


def best_by_reference(history: History) -> Fault:
    """`best = model.state_dict()` keeps references: it restores the last epoch, not the best.

    The curves are the restored validation loss for a stop after each epoch from the tenth on.
    """
    losses = np.array([epoch.validation_loss for epoch in history.epochs])
    epochs = np.arange(1, len(losses) + 1)
    shown = slice(min(9, len(losses) - 1), None)  # before, the loss falls too fast for the scale
    return Fault(
        "best kept by reference",
        "training stopped after epoch",
        "restored validation loss (nats)",
        epochs[shown],
        losses[shown],
        np.minimum.accumulate(losses)[shown],
    )


def statistics_not_saved(model: nn.Module, batch_size: int = 32, steps: int = 30, seed: int = 0) -> Fault:
    """Plain attributes are not in the state_dict: a loaded network starts at mean 0 and variance 1 again.

    The curves are the accuracies of the loaded network while it sees batches in train mode, and of the right one.
    """
    stream = batch_statistics(model, batch_size, steps, seed)
    running = {name: running_average(values, 0.1) for name, values in stream.items()}
    wrong = [
        accuracy(with_statistics(model, {name: (m[step], v[step]) for name, (m, v) in running.items()}))
        for step in range(0, steps + 1, 3)
    ]
    right = accuracy(model)
    x = np.arange(0, steps + 1, 3)
    return Fault(
        "running statistics not saved",
        "batches seen after loading",
        "accuracy",
        x,
        np.array(wrong),
        np.full(len(x), right),
    )


def momentum_inverted(model: nn.Module, batch_size: int = 32, steps: int = 60, seed: int = 0) -> Fault:
    """running ← momentum · running + (1 − momentum) · batch with momentum 0.1: the newest batch has weight 0.9.

    The curves are the running mean of the last norm's first channel under both rules.
    """
    name, norm = named_norm(model, next(reversed(custom_batchnorms(model)), None))
    means = batch_statistics(model, batch_size, steps, seed)[name][0][:, 0].double().tolist()
    assert norm.running_mean is not None
    start = float(norm.running_mean[0])
    right, wrong = (np.array(list(averages(means, weight, start))[1:]) for weight in (0.1, 0.9))
    return Fault(
        "momentum inverted",
        "batches seen",
        f"running mean, {name}",
        np.arange(1, steps + 1),
        wrong,
        right,
    )


@plotting.plot_style()
def figure(faults: list[Fault]) -> Figure:
    """One panel per fault."""
    drawn, panels = plotting.new_figure(columns=len(faults), width=3 * len(faults), height=2.8)
    for axes, fault in zip(panels, faults, strict=True):
        axes.plot(fault.x, fault.right, color=plotting.INK, label="right")
        axes.plot(fault.x, fault.wrong, "--", color=plotting.ROSE, label="wrong")
        axes.set(title=fault.name, xlabel=fault.x_label, ylabel=fault.y_label)
        if fault.y_label == "accuracy":
            plotting.percent_axis(axes.yaxis)
    plotting.legend(drawn, panels[0])
    return drawn
