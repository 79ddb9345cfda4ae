"""What several tabs are made of: the choice of company, a picture, a folded formula."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component
from matplotlib.figure import Figure
from torch import Tensor

from bnmodel.experiments.modes import COMPANY, companions
from demo.page import Drawn
from demo.svg import to_panels

MAX_SEED = 2**31 - 1
KINDS = {
    "random": "random digits",
    "one class": "all of one class",
    "copies": "copies of your digit",
    "noise": "noise",
    "inverted": "inverted digits",
    "blurred": "blurred digits",
}
LATEX: list[dict[str, Any]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


def company_controls(prefix: str = "") -> list[Component]:
    """One row that chooses a batch's company. Its values are the arguments of `company`."""
    with gr.Row(elem_classes="controls"):
        count = gr.Slider(0, 255, 31, step=1, label="Companions", elem_id=f"{prefix}count", min_width=160)
        choices = [(KINDS[kind], kind) for kind in COMPANY]
        kind = gr.Dropdown(choices, value="one class", label="Who", elem_id=f"{prefix}kind", min_width=150)
        label = gr.Dropdown(
            list(range(10)), value=1, label="Which class", elem_id=f"{prefix}class", min_width=90, scale=0
        )
        seed = reshuffle_button(f"{prefix}reshuffle")
    only_one_class = "kind => ({ interactive: kind === 'one class', __type__: 'update' })"
    kind.change(None, [kind], [label], js=only_one_class, api_visibility="private")
    return [count, kind, label, seed]


def company(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> Tensor:
    """float32 (count, 1, 28, 28)."""
    return companions(kind, count, seed, drawn.digit, label if kind == "one class" else None)


def reshuffle_button(name: str) -> gr.Number:
    """A button, and the seed that it raises by one."""
    button = gr.Button("Reshuffle", elem_id=name, min_width=110, scale=0)
    seed = gr.Number(
        0,
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        elem_id=f"{name}-seed",
        visible="hidden",  # mounted, or it would not tell of its change
    )
    button.click(None, [seed], [seed], js="seed => seed + 1", api_visibility="private")
    return seed


def fold(title: str, text: str) -> None:
    """Formula and source, folded away."""
    with gr.Accordion(title, open=False):
        gr.Markdown(text, latex_delimiters=LATEX)


def code(lines: str) -> None:
    """The lines that make the tab's picture without the app, folded away. A test runs them."""
    fold("In code", f"```python{lines}```")


def picture(height: int, name: str) -> gr.HTML:
    """Where a tab's picture goes. `height` pixels are kept for it on a wide screen."""
    return gr.HTML(elem_id=name, elem_classes="picture", min_height=height, apply_default_css=False)


def panels(figure: Figure, description: str, narrow: bool = False) -> str:
    """A figure on the page, its panels side by side as far as there is room. `narrow`: three in a row, not two."""
    return f'<div class="figure{" narrow" if narrow else ""}">{to_panels(figure, description)}</div>'


def sentence(words: str, drawn: Drawn | None = None, spoken: bool = True) -> str:
    """The picture in words (HTML). Screen readers speak it when it changes, unless not `spoken`: it always does."""
    note = '<br><span class="note">an example, until you draw</span>' if drawn and drawn.is_example else ""
    unbroken = words.replace(" %", "\u00a0%")  # no line begins with the sign
    return f'<p class="sentence" aria-live="{"polite" if spoken else "off"}">{unbroken}{note}</p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text as a table; the first column names the rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def percent(p: Any) -> str:
    """99.95 % must not read as a certainty."""
    return f"{int(1000 * p) / 10:.1f} %" if 0.99 < p < 1 else f"{100 * p:.0f} %"
