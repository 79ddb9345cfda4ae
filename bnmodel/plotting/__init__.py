"""Figures in one style, for light and dark pages."""

from bnmodel.plotting.style import EVAL, INK, TRAIN, new_figure, plot_style, powers_of_ten, save, stairs, ticks

__all__ = ["EVAL", "INK", "TRAIN", "new_figure", "plot_style", "powers_of_ten", "save", "stairs", "ticks"]
