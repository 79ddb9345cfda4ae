"""Figures in one style, for light and dark pages."""

from bnmodel.plotting.style import (
    EVAL,
    INK,
    OLIVE,
    ROSE,
    TRAIN,
    log_ticks,
    new_figure,
    percent,
    percent_axis,
    plot_style,
    powers_of_ten,
    save,
    stairs,
    ticks,
    whole_numbers,
)

__all__ = [
    "EVAL",
    "INK",
    "OLIVE",
    "ROSE",
    "TRAIN",
    "log_ticks",
    "new_figure",
    "percent",
    "percent_axis",
    "plot_style",
    "powers_of_ten",
    "save",
    "stairs",
    "ticks",
    "whole_numbers",
]
