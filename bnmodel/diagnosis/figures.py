"""Figures of the report: the deviation of every layer, and the outcome in both modes."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnmodel.diagnosis.report import LayerRecord, Report
from bnmodel.plotting import EVAL, INK, TRAIN, new_figure, plot_style

MARKS = {"error": "X", "warning": "D", "note": "o"}  # not by colour alone
MOST_NAMES = 30


@plot_style()
def layers_figure(report: Report) -> Figure:
    """Distance and variance ratio of each layer's running statistics, with the findings marked."""
    layers = [layer for layer in report.layers if layer.calls]
    height = 1.8 + 0.22 * min(max(len(layers), 3), 60)
    figure, (distance, ratio) = new_figure(columns=2, width=9.0, height=height)
    positions = range(len(layers))
    _bars(distance, layers, [layer.distance for layer in layers], "distance of running mean (σ)")
    _bars(ratio, layers, [_log(layer.variance_ratio) for layer in layers], "log(population / running variance)")
    noise = [layer.batch_noise if layer.batch_noise is not None else math.nan for layer in layers]
    distance.plot(noise, positions, "|", color=TRAIN, markersize=9, label="a batch's mean by chance")
    severity = {finding.layer: finding.severity for finding in reversed(report.findings)}
    for position, layer in enumerate(layers):
        if layer.name in severity:
            distance.plot(layer.distance or 0, position, MARKS[severity[layer.name]], color=INK, markersize=7)
    for kind, mark in MARKS.items():
        if kind in severity.values():
            distance.plot([], [], mark, color=INK, label=kind)
    if layers:
        distance.legend(loc="best")
    ratio.set_yticklabels([])
    return figure


@plot_style()
def outcome_figure(report: Report) -> Figure:
    """Accuracy, or loss, in eval mode and with batch statistics."""
    figure, (axes,) = new_figure(width=4.5, height=1.6)
    outcomes = [("batch statistics", report.train_outcome, TRAIN), ("eval mode", report.eval_outcome, EVAL)]
    known = [(name, outcome, color) for name, outcome, color in outcomes if outcome is not None]
    accuracy = all(outcome.accuracy is not None for _, outcome, _ in known)
    values = [outcome.accuracy if accuracy else outcome.loss for _, outcome, _ in known]
    axes.barh([name for name, _, _ in known], [value or 0 for value in values], color=[color for _, _, color in known])
    for position, value in enumerate(values):
        text = "–" if value is None else f" {value:.1%}" if accuracy else f" {value:.4g}"
        axes.text(value or 0, position, text, va="center")
    axes.set_xlabel("accuracy" if accuracy else "loss")
    axes.margins(x=0.2)
    return figure


def _bars(axes: Axes, layers: Sequence[LayerRecord], values: Sequence[float | None], label: str) -> None:
    axes.barh(range(len(layers)), [value if value is not None else 0.0 for value in values], color=EVAL)
    step = -(-len(layers) // MOST_NAMES) if layers else 1
    axes.set_yticks(range(0, len(layers), step), [_short(layer.name) for layer in layers[::step]])
    axes.set_ylim(max(len(layers), 3) - 0.5, -0.5)  # room for the legend
    axes.set_xlabel(label)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"


def _log(value: float | None) -> float | None:
    return None if value is None or not value > 0 else math.log(value)
