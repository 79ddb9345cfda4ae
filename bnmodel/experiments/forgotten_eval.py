"""A forgotten eval(): an app that predicts in train mode.

Every call normalises with its own batch and updates the running statistics, so each prediction permanently changes the
network. Dropout stays off, to isolate the effect of batch norm.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, plotting
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.cost import accuracy, scored_digits
from bnmodel.training.evaluation import predict_log_probs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CALLS = 200
# accuracy is measured after these and the last; fixed, so that other positions of the slider use the cache
POINTS = (0, 20, 50, 75, 100, 150)


@dataclass(frozen=True)
class ForgottenEval:
    """Measurements after `calls` predictions of the same digit in train mode."""

    label: int  # answer of the original network in eval mode
    right_accuracy: float
    calls: np.ndarray  # (P,) number of predictions so far
    accuracy: np.ndarray  # (P,) on the shipped test sample, in eval mode with the drifted statistics
    drift: np.ndarray  # (P,) root mean square over all channels of (drifted mean − original mean) / original std
    probability: np.ndarray  # (P,) of `label` for the digit, in eval mode with the drifted statistics
    answers: np.ndarray  # (P,) label of the digit with the drifted statistics
    digits: int  # that accuracy is measured on


def run(model: nn.Module, digit: Tensor, calls: int = 50) -> ForgottenEval:
    """Predict `digit`, float32 (28, 28), `calls` times (1 … 200) in train mode, one digit per call.

    Raises:
        ValueError: calls out of range.
    """
    if not 1 <= calls <= MAX_CALLS:
        raise ValueError(f"calls: expected 1 … {MAX_CALLS}, received {calls}")
    image = digit.view(1, 1, 28, 28)
    network = copy.deepcopy(model).eval()
    norms = custom_batchnorms(network)
    right = copy.deepcopy(norms)
    label = int(predict_log_probs(network, image).argmax())
    measured_at = [*(point for point in POINTS if point < calls), calls]
    rows = []
    for call in range(calls + 1):
        if call in measured_at:
            probabilities = predict_log_probs(network, image)[0].exp()
            answer = int(probabilities.argmax())
            rows.append((accuracy(network), _drift(norms, right), float(probabilities[label]), answer))
        for norm in norms.values():
            norm.train()  # dropout stays off
        with torch.no_grad():
            network(image)
        network.eval()
    accuracies, drift, probability, answers = (np.array(column) for column in zip(*rows, strict=True))
    scored = len(scored_digits(model))
    return ForgottenEval(
        label, float(accuracies[0]), np.array(measured_at), accuracies, drift, probability, answers, scored
    )


def _drift(norms: dict[str, CustomBatchNorm], right: dict[str, CustomBatchNorm]) -> float:
    """Root mean square over all channels of (mean − original mean) / original standard deviation."""
    distances = [torch.zeros(0)]
    for name, norm in norms.items():
        assert norm.running_mean is not None
        start, var = right[name].running_mean, right[name].running_var
        assert start is not None
        assert var is not None
        distances.append((norm.running_mean - start) / var.sqrt().clamp(min=1e-3))  # a dead channel has variance 0
    return float(torch.cat(distances).square().mean().sqrt())


@plotting.plot_style()
def figure(result: ForgottenEval) -> Figure:
    """Accuracy, probability of the digit, and drift, compared with the original network."""
    drawn, (accuracy, answer, drift) = plotting.new_figure(columns=3, width=9, height=2.8)
    accuracy.axhline(result.right_accuracy, color=plotting.EVAL, label="eval() called")
    accuracy.plot(result.calls, result.accuracy, "o--", color=plotting.TRAIN, markersize=3, label="eval() forgotten")
    bottom = max(0.0, float(result.accuracy.min()) - 0.1)
    accuracy.set(
        title=f"{result.digits:,} test digits",
        xlabel="predictions in train mode",
        ylabel="accuracy",
        ylim=(bottom, 1.01),
    )
    accuracy.legend()
    answer.axhline(result.probability[0], color=plotting.EVAL, label="eval() called")
    answer.plot(result.calls, result.probability, "o--", color=plotting.TRAIN, markersize=3, label="eval() forgotten")
    probability = f"probability of “{result.label}”"
    answer.set(title="this digit", xlabel="predictions in train mode", ylabel=probability, ylim=(0, 1.03))
    for axes in (accuracy, answer):
        plotting.percent_axis(axes.yaxis)
    drift.axhline(0, color=plotting.EVAL)
    drift.plot(result.calls, result.drift, "o--", color=plotting.TRAIN, markersize=3, label="eval() forgotten")
    drift.set(title="drift of the means", ylabel="standard deviations", xlabel="predictions in train mode")
    return drawn
