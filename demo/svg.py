"""Figures as inline SVG in the page's colours and font, one <svg> per panel.

INK becomes `currentColor`, EVAL and TRAIN become `--eval` and `--train`, so that a picture follows the light or dark
theme. Grid, ticks, numbers and labels are written here, since matplotlib takes longer for them than for all the rest.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from html import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter

from bnmodel.plotting import EVAL, INK, OLIVE, ROSE, TRAIN, plot_style
from demo import readings

ON_PAGE = {
    EVAL: f"var(--eval, {EVAL})",
    TRAIN: f"var(--train, {TRAIN})",
    ROSE: f"var(--rose, {ROSE})",
    OLIVE: f"var(--olive, {OLIVE})",
    INK: "currentColor",
}
TICK, GAP = 3.5, 7.0  # points: how long a tick is, and how far from the axes its number
TITLE, EM = 11.0, 0.54  # points, a title's font size; and the width of a character in font sizes
DIGIT = 6.0  # points, the width of one in a tick's number
LINE = 14.0  # points, the height of a line of text


def to_legend_and_panels(figure: Figure, description: str) -> tuple[str, str]:
    """One legend (HTML) for all panels, and the panels of `to_panels` without theirs."""
    legend = readings.legend(figure, ON_PAGE)
    return legend, to_panels(figure, description)


def to_panels(figure: Figure, description: str) -> str:
    """One inline <svg> per panel, so that a page can place them side by side or, on a phone, below each other.

    All boxes leave the same room around their axes, so that these stay aligned. Modifies `figure`: it is laid out anew,
    with the room estimated from the number of characters, and loses its scales. The first <svg> has the `description`
    for screen readers.
    """
    margins = _lay_out(figure)
    for axes in figure.axes:
        axes.xaxis.set_visible(False)
        axes.yaxis.set_visible(False)
    *parts, rest = re.split(r"(?=\n  <g id=)|(?=\n </g>\n)", _content(figure))
    panels = [part for part in parts if re.match(r'\n  <g id="\w*axes_', part)]
    clips = rest[len("\n </g>\n") :]  # shared by all panels, kept in the first
    texts = [description, *[""] * (len(panels) - 1)]
    return "".join(
        _svg(_box(axes, margins), _scales(axes, margins[0]) + panel + (clips if text else ""), text, _values(axes))
        for axes, panel, text in zip(figure.axes, panels, texts, strict=True)
    )


def _svg(box: str, content: str, description: str, values: str = "") -> str:
    told = f'role="img" aria-label="{escape(description)}"' if description else 'aria-hidden="true"'
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {told} {space} viewBox="{box}"{values}>{content}</svg>'


def _values(axes: Axes) -> str:
    """An attribute with the values of every curve and the places of its points, for touch.js and take_home.js."""
    curves = [
        {
            "name": one["name"],
            "points": [
                [float(f"{x:.6g}"), float(f"{y:.6g}"), *(round(place, 1) for place in _points(axes, px, py))]
                for x, y, px, py in one["points"]
            ],
        }
        for one in readings.series(axes)
    ]
    ticks = axes.xaxis.get_major_formatter()
    names = dict(zip(axes.get_xticks().tolist(), ticks.seq, strict=False)) if isinstance(ticks, FixedFormatter) else {}
    content = {
        "title": axes.get_title(loc="left"),
        "x": axes.get_xlabel(),
        "y": axes.get_ylabel(),
        "share": readings.is_share(axes),
        "levels": readings.levels(axes),
        "ticks": [[place, str(name)] for place, name in names.items() if not _is_number(str(name))],
        "curves": curves,
    }
    # single quotes around it, since JSON has many double ones
    text = escape(json.dumps(content, ensure_ascii=False), quote=False).replace("'", "&#39;")
    return f" data-values='{text}'" if curves else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _content(figure: Figure) -> str:
    """The content of the <svg>: text as text, the page's colours, and ids that are unique on the page."""
    buffer = io.StringIO()
    with plot_style(), rc_context({"svg.fonttype": "none"}):
        canvas = FigureCanvasSVG(figure)  # savefig would draw everything twice
        canvas.print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would style the whole page
    for colour, on_page in ON_PAGE.items():
        svg = svg.replace(colour, on_page)
    # otherwise it would use the clip paths of a picture in a hidden tab
    own = "f" + hashlib.blake2b(svg.encode(), digest_size=4).hexdigest()
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{own}_", svg)


def _lay_out(figure: Figure) -> tuple[float, float, float, float]:
    """Place all axes and titles. Returns the room around each axes in points: left, right, bottom, top."""
    drawn = figure.axes
    widest = [max(len(label) for axes in drawn for label in ["", *_labels(axis(axes))]) for axis in (_x, _y)]
    named = [any(axis(axes).get_label_text() for axes in drawn) for axis in (_x, _y)]
    left = GAP + DIGIT * widest[1] + LINE * named[1]
    bottom = GAP + LINE - 3 + (LINE + 2) * named[0]
    right, top = 2 + DIGIT / 2 * widest[0], 20 if any(axes.get_title(loc="left") for axes in drawn) else 4
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
        title = axes.get_title(loc="left")
        fitting = (across + right) / (EM * max(1, len(title)))  # or a phone would cut it off
        axes.set_title(title, loc="left", y=1.0, fontsize=min(TITLE, fitting))
    return left, right, bottom, top


def _x(axes: Axes) -> Axis:
    return axes.xaxis


def _y(axes: Axes) -> Axis:
    return axes.yaxis


def _labels(axis: Axis) -> list[str]:
    """The numbers at its major ticks; powers of ten as plain text."""
    labels = axis.get_major_formatter().format_ticks(list(axis.get_majorticklocs()))
    return [re.sub(r"\$\\mathdefault\{10\^\{(.*)\}\}\$", r"1e\1", label) for label in labels]


def _scales(axes: Axes, left: float) -> str:
    """Grid, ticks, numbers and labels of one axes as SVG. `left`: the room on its left, in points."""
    x0, y0, x1, y1 = _rectangle(axes)
    grid, ticks, texts = "", "", ""
    for x, label in _ticks(axes, axes.xaxis, x0, x1):
        grid += f"M{x:.1f} {y0:.1f}V{y1:.1f}"
        ticks += f"M{x:.1f} {y1:.1f}v{TICK}"
        texts += _text(x, y1 + LINE, label, "middle")
    for y, label in _ticks(axes, axes.yaxis, y0, y1):
        grid += f"M{x0:.1f} {y:.1f}H{x1:.1f}"
        ticks += f"M{x0:.1f} {y:.1f}h-{TICK}"
        texts += _text(x0 - GAP, y + 4, label, "end")
    texts += _text((x0 + x1) / 2, y1 + 2 * LINE + 2, axes.get_xlabel(), "middle")
    texts += _text(x0 - left + LINE - 4, (y0 + y1) / 2, axes.get_ylabel(), "middle", turned=True)
    if not axes.xaxis.get_tick_params().get("gridOn"):
        grid = ""
    stroke = 'fill="none" stroke="currentColor"'
    return (
        f'<path {stroke} stroke-opacity="0.25" stroke-width="0.6" d="{grid}"/>'
        f'<path {stroke} stroke-width="0.8" d="{ticks}"/>{texts}'
    )


def _ticks(axes: Axes, axis: Axis, first: float, last: float) -> Iterator[tuple[float, str]]:
    """The places in points and the labels of the ticks from `first` to `last`."""
    transform = axes.get_xaxis_transform() if axis is axes.xaxis else axes.get_yaxis_transform()
    for place, label in zip(axis.get_majorticklocs(), _labels(axis), strict=True):
        x, y = _points(axes, *transform.transform((place, 0) if axis is axes.xaxis else (0, place)))
        at = x if axis is axes.xaxis else y
        if first - 0.5 <= at <= last + 0.5:
            yield at, label


def _text(x: float, y: float, text: str, anchor: str, turned: bool = False) -> str:
    if not text:
        return ""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    style = f"font-size: 10px; text-anchor: {anchor}; fill: currentColor"
    return f'<text style="{style}" x="{x:.1f}" y="{y:.1f}"{turn}>{escape(text)}</text>'


def _box(axes: Axes, margins: tuple[float, float, float, float]) -> str:
    """The viewBox of one axes with the room around it; an equal aspect may leave part of it empty."""
    left, right, bottom, top = margins
    figure, place = axes.get_figure(), axes.get_position(original=True)
    assert isinstance(figure, Figure)
    width, height = (72 * float(inches) for inches in figure.get_size_inches())
    x0, y0, x1, y1 = width * place.x0, height * (1 - place.y1), width * place.x1, height * (1 - place.y0)
    return " ".join(f"{n:.1f}" for n in (x0 - left, y0 - top, x1 - x0 + left + right, y1 - y0 + top + bottom))


def _rectangle(axes: Axes) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of one axes in points, y downwards as in SVG."""
    x0, y0, x1, y1 = axes.get_window_extent().extents
    return (*_points(axes, x0, y1), *_points(axes, x1, y0))


def _points(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Pixels of a figure → points, y downwards."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    scale = 72 / figure.dpi
    return scale * float(x), scale * (float(figure.bbox.height) - float(y))
