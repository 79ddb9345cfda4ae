"""The one look of all pictures. matplotlib's object API only: no pyplot, so that no figure is kept alive.

On a page (`to_svg`, `to_panels`) the colours become the page's own, INK `currentColor` and the two modes `--eval` and
`--train`, so that a picture follows its light or dark theme.
"""

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation, Transform

from bnmodel.files import atomic_write
from bnmodel.history import History

EVAL = "#0072b2"  # running statistics; a pair that colour-blind readers can tell apart (Okabe & Ito)
TRAIN = "#d55e00"  # batch statistics
INK = "#4b4f56"
ON_PAGE = {EVAL: f"var(--eval, {EVAL})", TRAIN: f"var(--train, {TRAIN})", INK: "currentColor"}
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
def style() -> Iterator[None]:
    """The house's style, for a `with` block or, as `@style()`, for a function that draws.

    matplotlib's settings are global: one thread at a time, or one would restore what another still draws with.
    """
    with _lock, rc_context(STYLE):
        yield


def new_figure(columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` inches and its axes row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def to_svg(figure: Figure, description: str) -> str:
    """An inline <svg> in the colours and the font of its page; `description` is what a screen reader says."""
    box = " ".join(str(72 * inches) for inches in figure.get_size_inches())
    return _svg(f"0 0 {box}", _content(figure), description)


def to_panels(figure: Figure, description: str) -> str:
    """The same, one <svg> a panel, so that a page can wrap them: side by side on a wide screen, stacked on a phone.

    Their boxes leave the same room around the axes, so that these stay aligned wherever the panels come to lie. The
    room is reckoned from the number of characters, and `figure` laid out anew: somebody waits, and to measure every
    text takes longer than to draw it.
    """
    margins = _reckon(figure)
    *parts, rest = re.split(r"(?=\n  <g id=)|(?=\n </g>\n)", _content(figure))
    panels = [part for part in parts if re.match(r'\n  <g id="\w*axes_', part)]
    clips = rest[len("\n </g>\n") :]  # shared by all, kept in the first
    texts = [description, *[""] * (len(panels) - 1)]
    return "".join(
        _svg(_box(axes, margins), panel if text == "" else panel + clips, text)
        for axes, panel, text in zip(figure.axes, panels, texts, strict=True)
    )


def _svg(box: str, content: str, description: str) -> str:
    told = f'role="img" aria-label="{escape(description)}"' if description else 'aria-hidden="true"'
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {told} {space} viewBox="{box}">{content}</svg>'


def _content(figure: Figure) -> str:
    """What is inside the <svg>: text as text, the page's colours, and ids that no other picture has."""
    buffer = io.StringIO()
    with style(), rc_context({"svg.fonttype": "none"}):
        canvas = FigureCanvasSVG(figure)  # savefig would draw everything twice
        canvas.print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would style the whole page
    for colour, on_page in ON_PAGE.items():
        svg = svg.replace(colour, on_page)
    # a picture in a hidden tab would otherwise lend its clip paths to this one
    own = "f" + hashlib.blake2b(svg.encode(), digest_size=4).hexdigest()
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{own}_", svg)


def _reckon(figure: Figure) -> tuple[float, float, float, float]:
    """Fix all axes, titles and labels. The room around each axes in points: left, right, bottom, top."""
    drawn = figure.axes
    ticks = max(len(text) for axes in drawn for text in _tick_labels(axes.yaxis))
    last = max(len(text) for axes in drawn for text in _tick_labels(axes.xaxis))
    labels = [axes.get_xlabel() for axes in drawn], [axes.get_ylabel() for axes in drawn]
    below, beside = 18, 7 + 6 * ticks  # tick labels
    bottom, left = below + (16 if any(labels[0]) else 0), beside + (14 if any(labels[1]) else 0)
    right, top = 2 + 3 * last, 20 if any(axes.get_title(loc="left") for axes in drawn) else 4
    grid = drawn[0].get_gridspec()
    assert grid is not None
    width, height = (72 * inches for inches in figure.get_size_inches())
    across = (width - grid.ncols * (left + right)) / grid.ncols  # of one axes
    up = (height - grid.nrows * (bottom + top)) / grid.nrows
    figure.set_layout_engine("none")
    for axes in drawn:
        place = axes.get_subplotspec()
        assert place is not None
        x = left + place.colspan.start * (left + across + right)
        y = height - (place.rowspan.start + 1) * (top + up + bottom) + bottom
        axes.set_position((x / width, y / height, across / width, up / height))
        # in points from the axes, whose sides may yet change for an equal aspect
        axes.xaxis.set_label_coords(0.5, 0, axes.transAxes + _shift(figure, 0, -below - 2))
        axes.yaxis.set_label_coords(0, 0.5, axes.transAxes + _shift(figure, -beside, 0))
        axes.set_title(axes.get_title(loc="left"), loc="left", y=1.0)
    return left, right, bottom, top


def _shift(figure: Figure, x: float, y: float) -> Transform:
    return ScaledTranslation(x / 72, y / 72, figure.dpi_scale_trans)


def _tick_labels(axis: Axis) -> list[str]:
    return [*axis.get_major_formatter().format_ticks(list(axis.get_majorticklocs())), ""]


def _box(axes: Axes, margins: tuple[float, float, float, float]) -> str:
    """The viewBox of one axes and the room around it, in points."""
    left, right, bottom, top = margins
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    scale = 72 / figure.dpi
    x0, y0, x1, y1 = (scale * float(value) for value in axes.get_window_extent().extents)
    height = scale * figure.bbox.height
    numbers = (x0 - left, height - y1 - top, x1 - x0 + left + right, y1 - y0 + top + bottom)
    return " ".join(f"{number:.1f}" for number in numbers)


def save(figure: Figure, path: Path | str) -> None:
    """Write a PNG (on white, 150 dpi) or an SVG, by the ending of `path`, atomically."""
    with style(), atomic_write(path) as temporary:
        metadata = {"Date": None} if Path(path).suffix == ".svg" else {"Software": None}
        figure.savefig(temporary, dpi=150, facecolor="white", metadata=metadata)


@style()
def loss_curves(history: History, title: str = "") -> Figure:
    """Train and validation loss against epochs, with the best epoch and the stop marked."""
    figure, (axes,) = new_figure()
    numbers = [epoch.epoch for epoch in history.epochs]
    axes.plot(numbers, [e.train_loss for e in history.epochs], "--", color=TRAIN, label="training (with dropout)")
    axes.plot(numbers, [e.validation_loss for e in history.epochs], color=EVAL, label="validation")
    best, last = history.best, history.epochs[-1]
    axes.plot(best.epoch, best.validation_loss, "o", color=EVAL, markersize=7)
    text = f"best: {best.validation_loss:.4f}, epoch {best.epoch}"
    point = (best.epoch, best.validation_loss)
    axes.annotate(text, point, xytext=(-6, 12), textcoords="offset points", ha="right", color=EVAL)
    stopped = {"early": "stopped early", "finished": "finished", "interrupted": "interrupted"}[history.stopped]
    axes.axvline(last.epoch, color=INK, linestyle=":", label=f"{stopped} after epoch {last.epoch}")
    axes.set(xlabel="epoch", ylabel="loss (nats)", yscale="log", title=title)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend()
    return figure
