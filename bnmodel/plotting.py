"""Figures in one style, for light and dark pages.

Only matplotlib's object API is used: pyplot would keep every figure alive. The first figure imports matplotlib, since
that takes as long as importing the rest of bnmodel.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnmodel.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

EVAL = "#0072b2"  # running statistics; with TRAIN, a pair for colour-blind readers (Okabe & Ito)
TRAIN = "#d55e00"  # batch statistics
INK = "#4b4f56"
ROSE, OLIVE = "#b0306a", "#5c7a00"  # other comparisons, with INK; not for eval and train
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
    "legend.fontsize": 10,
    "legend.title_fontsize": 10,
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
    from matplotlib import rc_context

    with _lock, rc_context(STYLE):
        yield


def new_figure(columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` inches and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def ticks(axis: Axis, positions: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks at `positions`; faster than matplotlib's `set_ticks`, which creates them at once."""
    from matplotlib.ticker import FixedFormatter, FixedLocator

    axis.set_major_locator(FixedLocator(positions))
    axis.set_major_formatter(FixedFormatter(labels))


def stairs(
    axes: Axes, heights: np.ndarray, edges: np.ndarray, fill: bool = False, label: str = "", **look: Any
) -> None:
    """Draw a histogram (B,) over its edges (B + 1,), faster than matplotlib's `stairs`.

    Invisible points in the middle of the bins let a page show the heights; the legend leaves out their label.
    """
    x, y = np.repeat(edges, 2), np.concatenate(([0], np.repeat(heights, 2), [0]))
    if fill:
        axes.fill_between(x, y, label=label, **look)
    else:
        axes.plot(x, y, label=label, **look)
    axes.plot((edges[:-1] + edges[1:]) / 2, heights, linestyle="none", label=f"_{label}")


def percent(share: Any) -> str:
    """“45%”; 99.95% is not rounded to 100%, nor 0.04% to 0%."""
    if 0 < share < 0.001:
        return "below 0.1%"
    if 0.999 < share < 1:
        return "above 99.9%"
    if 0.99 < share < 1:
        return f"{int(1000 * share) / 10:.1f}%"
    return f"{100 * share:.1f}%" if share and share < 0.01 else f"{100 * share:.0f}%"


def certainty(probability: Any) -> str:
    """`percent` of a network's answer. It never shows 0% or 100%, since softmax gives neither 0 nor 1."""
    return percent(min(max(float(probability), 1e-9), 1 - 1e-9))


def percent_axis(axis: Axis) -> None:
    """Format the ticks of an axis of shares as percentages, such as “50%”."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="%"))


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def log_ticks(axis: Axis, digits: Sequence[int]) -> None:
    """Ticks at `digits` times the powers of ten of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, *panels: Axes) -> None:
    """One legend above all panels, so that it covers no data: each name of `panels` once, in as few rows as fit."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    inches = 0.55 + 0.075 * max(map(len, handles))  # of an entry, about
    rows = math.ceil(len(handles) * inches / figure.get_figwidth())
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=columns)


def powers_of_ten(powers: Iterable[int]) -> list[str]:
    """Labels such as 1e-3 in plain text: mathtext takes longer than the rest of a figure."""
    return [f"1e{power}" if power else "1" for power in powers]


def save(figure: Figure, path: Path | str) -> None:
    """Write a PNG (white background, 150 dpi) or an SVG, if `path` ends in .svg, atomically."""
    with plot_style(), atomic_write(path) as temporary:
        kind = "svg" if Path(path).suffix == ".svg" else "png"
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(temporary, format=kind, dpi=150, facecolor="white", metadata=metadata)
