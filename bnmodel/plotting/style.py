"""Shared plot style. It uses matplotlib's object API only: pyplot would keep every figure alive."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator

from bnmodel.io import atomic_write

EVAL = "#0072b2"  # running statistics; with TRAIN, a pair for colour-blind readers (Okabe & Ito)
TRAIN = "#d55e00"  # batch statistics
INK = "#4b4f56"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "bnmodel",  # reproducible SVG files
}


_lock = threading.RLock()


@contextmanager
def plot_style() -> Iterator[None]:
    """The shared style, as a context manager or, as `@plot_style()`, a decorator.

    matplotlib's settings are global, so only one thread at a time can be inside.
    """
    with _lock, rc_context(STYLE):
        yield


def new_figure(columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` inches and its axes row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def ticks(axis: Axis, places: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks at `places`; faster than matplotlib's `set_ticks`, which creates them at once."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(labels))


def stairs(axes: Axes, heights: np.ndarray, edges: np.ndarray, fill: bool = False, **look: Any) -> None:
    """A histogram (B,) over edges (B + 1,); faster than matplotlib's `stairs`."""
    x, y = np.repeat(edges, 2), np.concatenate(([0], np.repeat(heights, 2), [0]))
    if fill:
        axes.fill_between(x, y, **look)
    else:
        axes.plot(x, y, **look)


def powers_of_ten(powers: Iterable[int]) -> list[str]:
    """Labels such as 1e-3, as plain text: matplotlib's mathtext takes longer than the rest of a figure."""
    return [f"1e{power}" if power else "1" for power in powers]


def save(figure: Figure, path: Path | str) -> None:
    """Write a PNG (white background, 150 dpi) or an SVG, depending on the suffix of `path`, atomically."""
    with plot_style(), atomic_write(path) as temporary:
        metadata = {"Date": None} if Path(path).suffix == ".svg" else {"Software": None}
        figure.savefig(temporary, dpi=150, facecolor="white", metadata=metadata)
