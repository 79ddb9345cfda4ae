"""Parts of a tab: its texts, code and pictures, and the buttons that save them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.page import EXAMPLE, Drawn
from demo.scripts import on_mount
from demo.server.live_training import WAITING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATEX: list[dict[str, Any]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


def lead(words: str) -> None:
    """A sentence above the controls on a phone, where the hint comes after the picture."""
    gr.Markdown(words, elem_classes="lead")


def hint(words: str) -> None:
    """A note above the picture on what to look at."""
    gr.Markdown(words, elem_classes=["look", "hint"])


def look(words: str) -> None:
    """An explanation of the picture, beside or below it."""
    gr.Markdown(words, elem_classes="look")


def fold(text: str, title: str = "The formula and the source") -> None:
    """A text, folded away."""
    with gr.Accordion(title, open=False):
        gr.Markdown(text, latex_delimiters=LATEX)


def code(lines: str = "", reads_digit: bool = False) -> gr.Markdown:
    """A folded section for code that reproduces the tab's picture without the app; `with_code` fills it.

    Args:
        lines: code shown at first.
        reads_digit: the code reads the digit on the pad, so offer a button that saves it (pad.js).
    """
    with gr.Accordion("In code", open=False):
        where = "Run it in the folder of the repository, which has <code>bnmodel</code> and <code>checkpoints</code>."
        save = (
            ' <span class="of-drawing">It reads your digit: '
            '<button type="button" data-do="save-digit">Save digit.png</button></span>'
        )
        gr.HTML(f'<p class="run">{where}{save if reads_digit else ""}</p>', apply_default_css=False)
        return gr.Markdown(fenced(lines) if lines else None)


def with_code(show: Callable[..., Any], snippet: Callable[..., str]) -> Callable[..., Any]:
    """A function that returns the outputs of `show`, then `snippet` of the same arguments for `code`."""

    def both(drawn: Drawn, *values: Any) -> tuple[Any, ...]:
        shown = show(drawn, *values)
        return *(shown if isinstance(shown, tuple) else (shown,)), fenced(snippet(drawn, *values))

    return both


def coded(snippet: Callable[..., str]) -> Callable[..., str]:
    """A function that returns `snippet` of its arguments for `code`."""
    return lambda drawn, *values: fenced(snippet(drawn, *values))


def fenced(lines: str) -> str:
    """Python code as a Markdown block."""
    return f"```python\n{lines.strip()}\n```"


def digit_in_code(drawn: Drawn) -> str:
    """The lines that load this network and this digit."""
    digit = (
        f"load_sample(train=False).images[{EXAMPLE}, 0]"
        if drawn.is_example
        else 'catalogue.read_digit(Path("digit.png"))  # the digit on the pad; the button above saves it'
    )
    more = (
        "from bnmodel.data import load_sample\n"
        if drawn.is_example
        else "from pathlib import Path\nfrom bnmodel.experiments import catalogue\n"
    )
    return (
        f"from bnmodel import load_checkpoint, plotting\n{more}"
        f'model = load_checkpoint("checkpoints/{drawn.model.name}").model\ndigit = {digit}\n'
    )


def picture(height: int, name: str) -> gr.HTML:
    """A placeholder for a tab's picture, `height` pixels high on a wide screen. touch.js shows the picture's values."""
    return gr.HTML(
        f'<div class="room" style="height: {height}px"></div>',  # Gradio does not keep `min_height` while it waits
        elem_id=name,
        elem_classes="picture",
        min_height=height,
        apply_default_css=False,
        js_on_load=on_mount("touch"),
    )


def live_picture(name: str) -> gr.HTML:
    """A placeholder for the figure of a live run; its height is reserved, so the page does not move when it begins."""
    place = picture(470, name)
    place.value = WAITING
    return place


def take_home(name: str) -> None:
    """Buttons that save the pictures of this tab and their values; `name` is part of the file names."""
    kinds = {
        "png": "The pictures of this tab, for slides",
        "svg": "The pictures of this tab, to scale and edit",
        "csv": "The numbers behind them, for a spreadsheet",
        "json": "The numbers with the settings and the network's name, for programs",
    }
    buttons = "".join(
        f'<button type="button" data-save="{kind}" title="{title}">{kind.upper()}</button>'
        for kind, title in kinds.items()
    )
    gr.HTML(
        f'<p class="take-home" data-name="{escape(name)}">Save as {buttons}</p>',
        js_on_load=on_mount("take_home"),
        apply_default_css=False,
    )


def check_own(fault: str) -> None:
    """A link to the tab that looks for `fault` in the visitor's own network."""
    gr.HTML(
        f'<p class="own"><a href="?tab=your-model">Check your own network</a> for {escape(fault)}.</p>',
        apply_default_css=False,
    )


def panels(figure: Figure, description: str, narrow: bool = False) -> str:
    """A figure (HTML) with its panels side by side if there is room: two in a row, or three if `narrow`."""
    from demo.svg import to_legend_and_panels  # imports matplotlib; see `Page.warm_up`

    legend, parts = to_legend_and_panels(figure, plain(description))
    return f'<div class="legended">{legend}<div class="figure{" narrow" if narrow else ""}">{parts}</div></div>'


def plain(words: str) -> str:
    """HTML without its tags, for screen readers."""
    return re.sub(r"<[^>]*>", "", words)


def signed(number: str) -> str:
    """Replace the hyphen by a minus sign: no line breaks after it, and it is as wide as a plus."""
    return number.replace("-", "−")


def significant(value: float, digits: int = 3) -> str:
    """The value with the same number of significant digits at any size, as 630, 3.00 or 0.0560; rarely an exponent."""
    rounded = float(f"{value:.{digits}g}")
    if not 1e-5 <= abs(rounded) < 1e6:  # 0, inf and nan as well
        return f"{rounded:g}"
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def done(solved: bool) -> str:
    """The mark that ticks the tab's task, see `demo.page`."""
    return "<span data-done></span>" if solved else ""


def sentence(words: str, drawn: Drawn | None = None, spoken: bool = True) -> str:
    """What the picture shows, in words (HTML). Screen readers announce its changes if `spoken`."""
    note = '<br><span class="note">Example – draw to use your own digit</span>' if drawn and drawn.is_example else ""
    return f'<p class="sentence" aria-live="{"polite" if spoken else "off"}">{words}{note}</p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text as an HTML table; the first column names the rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
