"""Values and legends of matplotlib figures, for touch.js and the page.

plotly, which Gradio supports, would load 4.6 MB of script before the first figure; touch.js has 7 KB.
"""

import re
from html import escape
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from bnmodel.plotting import percent

MOST_POINTS = 120  # per curve; more could not be pointed at separately
DASHES = {"--": "5 3", ":": "1.5 3", "-.": "6 3 1.5 3"}
MARKERS = {
    "o": '<circle cx="11" cy="5" r="3"/>',
    "s": '<rect x="8" y="2" width="6" height="6"/>',
    "D": '<path d="M11 1l4 4-4 4-4-4z"/>',
    ".": '<circle cx="11" cy="5" r="1.8"/>',
}


def series(axes: Axes) -> list[dict[str, Any]]:
    """Every curve, histogram and group of bars: {"name", "points": [(x, y, pixel x, pixel y), …]}, y upwards."""
    found = []
    for line, name in _lines(axes):
        x, y = (np.asarray(values, float) for values in line.get_data())
        transform = line.get_transform()
        if len(x) == 2 and transform != axes.transData:  # axhline or axvline
            continue
        is_outline = len(x) > 3 and (x[0:4:2] == x[1:4:2]).all()  # of `plotting.stairs`, which adds points
        if not len(x) or is_outline:
            continue
        every = max(1, len(x) // MOST_POINTS)
        places = transform.transform(np.column_stack((x, y)))
        points = np.column_stack((x, y, places))[::every]
        found.append({"name": name, "points": points[np.isfinite(points).all(1)].tolist()})
    for container in axes.containers:
        if isinstance(container, BarContainer):
            tops = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in container]
            points = np.column_stack((tops, axes.transData.transform(tops)))
            found.append({"name": _shown(str(container.get_label())), "points": points.tolist()})
    return [one for one in found if one["points"]]


def levels(axes: Axes) -> list[str]:
    """“eval mode: 0.99” for each horizontal line across the axes."""
    return [
        f"{name}: {number(float(np.asarray(line.get_ydata())[0]), is_share(axes))}"
        for line, name in _lines(axes)
        if name
        and len(np.asarray(line.get_xdata())) == 2
        and line.get_transform() == axes.get_yaxis_transform(which="grid")
    ]


def is_share(axes: Axes) -> bool:
    """Whether its y axis is in percent."""
    return isinstance(axes.yaxis.get_major_formatter(), PercentFormatter)


def number(value: float, share: bool = False) -> str:
    if not share:
        return f"{value:.4g}".replace("-", "−")
    return percent(value) if 0.999 < value < 1 or 0 < value < 0.001 else f"{100 * value:.3g}%"


def legend(figure: Figure, on_page: dict[str, str]) -> str:
    """The legend above all panels (HTML), in the page's colours. Removes the figure's own."""
    if not figure.legends:
        return ""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    own = figure.legends[0]
    names = [text.get_text() for text in own.get_texts()]
    own.remove()
    items = "".join(f"<span>{_sample(handles[name], on_page)}{escape(name)}</span>" for name in names)
    return f'<p class="legend">{items}</p>'


def _lines(axes: Axes) -> list[tuple[Line2D, str]]:
    """The lines and their names; of error bars only the central line, under the bars' name."""
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    named = {container.lines[0]: str(container.get_label()) for container in bars}
    parts = set(chain.from_iterable(container.lines[1] for container in bars))
    return [(line, _shown(named.get(line, str(line.get_label())))) for line in axes.lines if line not in parts]


def _shown(label: str) -> str:
    """`label` without a leading underscore; "" for matplotlib's own labels, such as “_child3”."""
    return "" if re.fullmatch(r"_child\d+|_container\d+|_nolegend_", label) else label.removeprefix("_")


def _sample(handle: Any, on_page: dict[str, str]) -> str:
    """The symbol of a legend entry, a 22×10 <svg>."""
    if isinstance(handle, ErrorbarContainer):
        handle = handle.lines[0]
    line = isinstance(handle, Line2D)
    if isinstance(handle, BarContainer):
        handle = handle.patches[0]
    color = to_hex(handle.get_color() if line else np.atleast_2d(handle.get_facecolor())[0])
    paint = on_page.get(color, color)
    if not line:
        alpha = handle.get_alpha() or 1
        drawn = f'<rect y="1" width="22" height="8" fill="{paint}" opacity="{alpha:g}"/>'
    else:
        look = str(handle.get_linestyle())
        dashes = f' stroke-dasharray="{DASHES[look]}"' if look in DASHES else ""
        stroke = f'<path d="M0 5h22" fill="none" stroke="{paint}" stroke-width="2"{dashes}/>' if look != "None" else ""
        drawn = f'{stroke}<g fill="{paint}">{MARKERS.get(str(handle.get_marker()), "")}</g>'
    return f'<svg viewBox="0 0 22 10" width="22" height="10" aria-hidden="true">{drawn}</svg>'
