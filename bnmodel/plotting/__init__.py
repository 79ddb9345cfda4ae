"""Figures in one style, for light and dark pages."""

from bnmodel.plotting.style import (
    EVAL,
    INK,
    OLIVE,
    ROSE,
    TRAIN,
    new_figure,
    percent,
    percent_axis,
    plot_style,
    powers_of_ten,
    save,
    stairs,
    ticks,
)

__all__ = [
    "EVAL",
    "INK",
    "OLIVE",
    "ROSE",
    "TRAIN",
    "new_figure",
    "percent",
    "percent_axis",
    "plot_style",
    "powers_of_ten",
    "save",
    "stairs",
    "ticks",
]
