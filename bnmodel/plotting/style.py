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

EVAL = "#0072b2"  # running statistics; a pair that colour-blind readers can tell apart (Okabe & Ito)
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
    "svg.hashsalt": "bnmodel",  # the same picture gives the same file
}


_lock = threading.RLock()


@contextmanager
def plot_style() -> Iterator[None]:
    """The house's style, for a `with` block or, as `@plot_style()`, for a function that draws.

    matplotlib's settings are global: one thread at a time, or one would restore what another still draws with.
    """
    with _lock, rc_context(STYLE):
        yield


def new_figure(columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` inches and its axes row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def ticks(axis: Axis, places: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks at `places`. As matplotlib's `set_ticks`, which also makes them at once, though a page needs none."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(labels))


def stairs(axes: Axes, heights: np.ndarray, edges: np.ndarray, fill: bool = False, **look: Any) -> None:
    """A histogram (B,) over its edges (B + 1,), as matplotlib's `stairs`, which looks at every corner of it."""
    x, y = np.repeat(edges, 2), np.concatenate(([0], np.repeat(heights, 2), [0]))
    if fill:
        axes.fill_between(x, y, **look)
    else:
        axes.plot(x, y, **look)


def powers_of_ten(powers: Iterable[int]) -> list[str]:
    """1e-3 …, as plain text: matplotlib's own take longer to set than the rest of a picture takes to draw."""
    return [f"1e{power}" if power else "1" for power in powers]


def save(figure: Figure, path: Path | str) -> None:
    """Write a PNG (on white, 150 dpi) or an SVG, by the ending of `path`, atomically."""
    with plot_style(), atomic_write(path) as temporary:
        metadata = {"Date": None} if Path(path).suffix == ".svg" else {"Software": None}
        figure.savefig(temporary, dpi=150, facecolor="white", metadata=metadata)
