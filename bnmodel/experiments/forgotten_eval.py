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
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.cost import accuracy, scored_digits
from bnmodel.training.evaluation import predict_log_probs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CALLS = 200
STRIDE = 10  # calls after which the statistics are kept
# accuracy is measured after these and the last; fixed, so that all positions of the slider share the cache
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
    label = int(predict_log_probs(model, digit.view(1, 1, 28, 28)).argmax())
    measured_at = [*(point for point in POINTS if point < calls), calls]
    rows = [_measured(model, digit, label, call) for call in measured_at]
    accuracies, drift, probability, answers = (np.array(column) for column in zip(*rows, strict=True))
    scored = len(scored_digits(model))
    return ForgottenEval(
        label, float(accuracies[0]), np.array(measured_at), accuracies, drift, probability, answers, scored
    )


@cache_by_content(256)
def _measured(model: nn.Module, digit: Tensor, label: int, calls: int) -> tuple[float, float, float, int]:
    """Accuracy, drift, probability of `label` and answer after `calls` predictions in train mode."""
    network = _drifted(model, digit, calls)
    probabilities = predict_log_probs(network, digit.view(1, 1, 28, 28))[0].exp()
    drift = _drift(custom_batchnorms(network), custom_batchnorms(model))
    return accuracy(network), drift, float(probabilities[label]), int(probabilities.argmax())


def _drifted(model: nn.Module, digit: Tensor, calls: int) -> nn.Module:
    """A copy of `model` in eval mode, after `calls` predictions in train mode."""
    network = copy.deepcopy(model).eval()
    done = max(calls - 1, 0) // STRIDE * STRIDE
    if done:
        network.load_state_dict(_statistics(model, digit, done), strict=False)
    for _ in range(calls - done):
        for norm in custom_batchnorms(network).values():
            norm.train()  # dropout stays off
        with torch.no_grad():
            network(digit.view(1, 1, 28, 28))
        network.eval()
    return network


@cache_by_content(256)  # 5 KB each; moving a slider then costs few calls
def _statistics(model: nn.Module, digit: Tensor, calls: int) -> dict[str, Tensor]:
    """The buffers of `_drifted`, by name."""
    return dict(_drifted(model, digit, calls).named_buffers())


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
    plotting.legend(drawn, accuracy)
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
