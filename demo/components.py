"""What several tabs are made of: the batch they share, a picture, what can be saved of it, a folded formula."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from torch import Tensor

from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.company import COMPANY, Company, companions, most_telling
from bnmodel.plotting import percent
from demo import url_state
from demo.page import EXAMPLE, Drawn, Page
from demo.scripts import on_mount
from demo.server.gradio_private import current_blocks
from demo.server.live_training import WAITING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["percent"]  # with what is defined here
MAX_SEED = 2**31 - 1
AUTO = "auto"  # the company is looked for
MOST_SHIFTED = -1  # the channel whose mean is furthest from the running mean
KINDS = {
    "random": "random digits",
    "one class": "all of one class",
    "copies": "copies of your digit",
    "blurred": "blurred digits",
    "inverted": "inverted digits",
    "blank": "blank sheets",
    "noise": "noise",
}
PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
PRESETS: dict[str, tuple[int, str, int, int]] = {  # count, kind, class, seed
    "Make the answer flip": (31, AUTO, 1, 0),
    "A batch of 2": (1, "random", 1, 0),
    "Alone": (0, "random", 1, 0),
    "31 ones": (31, "one class", 1, 0),
    "Blurred digits": (31, "blurred", 1, 0),
    "Copies of it": (31, "copies", 1, 0),
}
LATEX: list[dict[str, Any]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


# ---- the batch that tabs share


def batch_controls(page: Page, prefix: str = "") -> list[Component]:
    """A row that chooses the other digits of the batch, the same for all tabs with such a row.

    The first row made is in the address; the others are kept equal to it. Returns the first row, for `Tab.live`'s
    `shared`: count, kind, class and seed, the arguments of `company`.
    """
    with gr.Row(elem_classes="controls"):
        choices = [("the batch that shows most", AUTO), *((KINDS[kind], kind) for kind in COMPANY)]
        kind = gr.Dropdown(
            choices, value=AUTO, label="Other digits in the batch", elem_id=f"{prefix}kind", min_width=220
        )
        count = gr.Slider(
            0, 255, 31, step=1, label="How many", elem_id=f"{prefix}count", min_width=160, interactive=False
        )
        label = gr.Dropdown(
            list(range(10)),
            value=1,
            label="Which class",
            elem_id=f"{prefix}class",
            min_width=90,
            scale=0,
            interactive=False,
        )
        first = page.shared.get("batch")
        seed = reshuffle_button(f"{prefix}reshuffle", first[-1] if first else None)
    own = [count, kind, label, *([] if first else [seed])]
    able = f"""kind => [kind !== '{AUTO}', kind === 'one class'].map(
        interactive => ({{ interactive, __type__: 'update' }}))"""
    kind.change(None, [kind], [count, label], js=able, api_visibility="private")
    return share(page, "batch", own)


def share(page: Page, name: str, own: list[Component]) -> list[Component]:
    """Keep the controls `own` of several tabs equal; those that came first are the ones to read and to write.

    A change makes the visible tab look again, as a new drawing does; hidden tabs catch up when they are shown.
    """
    first = page.shared.setdefault(name, own)
    if first is own:
        page.note_shared(own)
        again = "() => { document.dispatchEvent(new CustomEvent('digit')); }"
        gr.on([one.change for one in own], None, None, js=again, api_visibility="private")  # type: ignore[attr-defined]
        return first
    same = first[: len(own)]
    options: dict[str, Any] = {"js": "(...values) => values", "api_visibility": "private"}
    gr.on([one.change for one in same], None, same, own, **options)  # type: ignore[attr-defined]
    gr.on([one.input for one in own], None, own, same, **options)  # type: ignore[attr-defined]
    return first


def presets(shared: Sequence[Component]) -> None:
    """Buttons that choose a batch; the one whose batch is shown is pressed."""
    chosen: dict[str, tuple[int, str, int, int]] = {}
    with gr.Row(elem_classes=["controls", "presets"]):
        for title, values in PRESETS.items():
            name = url_state.slug(f"try {title}")
            button = gr.Button(title, size="sm", min_width=60, scale=0, elem_id=name)
            button.click(None, None, list(shared), js=f"() => {json.dumps(values)}", api_visibility="private")
            chosen[name] = values
    press = f"""(count, kind, label, seed) => {{
        for (const [name, [n, of, which, first]] of Object.entries({json.dumps(chosen)})) {{
            const same = kind === of && (kind === '{AUTO}' || count === n) && (kind !== 'one class' || label === which);
            document.getElementById(name)?.setAttribute('aria-pressed', same && seed === first);
        }}
    }}"""
    changes = [control.change for control in shared]  # type: ignore[attr-defined]
    gr.on([current_blocks().load, *changes], None, list(shared), js=press, api_visibility="private")


def asked(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> tuple[Company, bool | None]:
    """The company that the controls ask for; and where it was looked for, whether it changes the answer."""
    if kind != AUTO:
        return Company(kind, count, label if kind == "one class" else None, seed), None
    return most_telling(drawn.model.network, drawn.digit, seed)


def company(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> Tensor:
    """float32 (count, 1, 28, 28)."""
    chosen, _ = asked(drawn, count, kind, label, seed)
    return companions(chosen.kind, chosen.count, chosen.seed, drawn.digit, chosen.label)


def named(company: Company) -> str:
    """“with 7 fives in the batch”."""
    if not company.count:
        return "alone in its batch"
    many = company.count > 1
    kinds = {
        "random": "random digits" if many else "random digit",
        "one class": PLURALS[company.label or 0] if many else str(company.label),
        "copies": "copies of itself" if many else "copy of itself",
        "blurred": "blurred digits" if many else "blurred digit",
        "inverted": "inverted digits" if many else "inverted digit",
        "blank": "blank sheets" if many else "blank sheet",
        "noise": "sheets of noise" if many else "sheet of noise",
    }
    if not many and company.kind == "one class":
        return f"with one other digit in the batch (a{'n' if company.label == 8 else ''} {company.label})"
    return f"with {company.count} {kinds[company.kind]} in the batch"


def layer_controls(page: Page, prefix: str = "") -> list[Component]:
    """A row that chooses a batch norm of the network and one of its channels, the same for all tabs with such a row.

    Returns the shared layer, counted from 0, and the channel, MOST_SHIFTED for the one whose mean is furthest from the
    running mean.
    """
    norms = {
        name: [(norm, layer.num_features) for norm, layer in custom_batchnorms(model.network).items()]
        for name, model in page.models.items()
    }
    names = norms[page.model.value] or [("none", 1)]
    widest = max((width for one in norms.values() for _, width in one), default=1)
    with gr.Row(elem_classes="controls"):
        layer = gr.Dropdown(
            [(name, k) for k, (name, _) in enumerate(names)], value=0, label="Batch norm", elem_id=f"{prefix}layer"
        )
        channel = gr.Dropdown(
            [("the most shifted", MOST_SHIFTED), *((str(k), k) for k in range(widest))],  # what an address may ask for
            value=MOST_SHIFTED,
            label="Channel",
            elem_id=f"{prefix}channel",
            min_width=130,
        )
    offered = f"""(name, layer, channel) => {{
        const norms = {json.dumps(norms)}[name];
        const names = norms.length ? norms : [['none', 1]];
        const at = Math.min(layer, names.length - 1);
        const channels = [...Array(names[at][1]).keys()].map((k) => [String(k), k]);
        const asked = channel < names[at][1] ? channel : {MOST_SHIFTED};
        return [
            {{ choices: names.map(([name], k) => [name, k]), value: at, __type__: 'update' }},
            {{ choices: [['the most shifted', {MOST_SHIFTED}], ...channels], value: asked, __type__: 'update' }},
        ];
    }}"""
    asks = [page.model, layer, channel]
    gr.on([page.model.change, layer.change], None, asks, [layer, channel], js=offered, api_visibility="private")
    offer_at_first(channel, names[0][1] + 1)
    return share(page, "place", [layer, channel])


def offer_at_first(dropdown: gr.Dropdown, count: int) -> None:
    """Let a page that opens show only the first `count` choices; the server accepts them all."""
    config = dropdown.get_config

    def shown_first(*arguments: Any) -> dict[str, Any]:
        return {**config(*arguments), "choices": dropdown.choices[:count]}

    dropdown.get_config = shown_first  # type: ignore[method-assign, assignment]


def which(place: int | None, count: int) -> int:
    """The chosen place in 0 … count − 1; another network may have had more."""
    return min(max(place or 0, 0), count - 1)


def reshuffle_button(name: str, seed: Component | None = None) -> Component:
    """A button, and the seed that it raises by one: `seed`, or a new one."""
    button = gr.Button("Reshuffle", elem_id=name, min_width=110, scale=0)
    seed = seed or gr.Number(
        0,
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        elem_id=f"{name}-seed",
        visible="hidden",  # mounted, or it would not tell of its change
    )
    button.click(None, [seed], [seed], js="seed => seed + 1", api_visibility="private")
    return seed


# ---- around a picture


def hint(words: str) -> None:
    """What to look at, above the picture."""
    gr.Markdown(words, elem_classes=["look", "hint"])


def fold(title: str, text: str) -> None:
    """Formula and source, folded away."""
    with gr.Accordion(title, open=False):
        gr.Markdown(text, latex_delimiters=LATEX)


def code(lines: str = "", reads_digit: bool = False) -> gr.Markdown:
    """Where `with_code` puts the lines that make the tab's picture without the app, folded away; `lines` at first.

    `reads_digit`: the lines need the digit on the pad, which a button saves (pad.js).
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
    """`show`, and after its outputs `snippet` of the same arguments, for a place made by `code`. A test runs it."""

    def both(drawn: Drawn, *values: Any) -> tuple[Any, ...]:
        shown = show(drawn, *values)
        return *(shown if isinstance(shown, tuple) else (shown,)), fenced(snippet(drawn, *values))

    return both


def fenced(lines: str) -> str:
    """Python as Markdown."""
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


def company_in_code(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> str:
    """The lines that make the rest of the batch."""
    chosen, _ = asked(drawn, count, kind, label, seed)
    of_class = f", label={chosen.label}" if chosen.label is not None else ""
    arguments = f'"{chosen.kind}", {chosen.count}, {chosen.seed}, digit{of_class}'
    return f"""from bnmodel.experiments.company import companions

company = companions({arguments})  # {named(chosen)}
"""


def picture(height: int, name: str) -> gr.HTML:
    """Where a tab's picture goes. `height` pixels are kept for it on a wide screen; its values can be touched."""
    return gr.HTML(
        f'<div style="height: {height}px"></div>',  # Gradio does not keep `min_height` while it waits
        elem_id=name,
        elem_classes="picture",
        min_height=height,
        apply_default_css=False,
        js_on_load=on_mount("touch"),
    )


def live_picture(name: str) -> gr.HTML:
    """Where a live training is drawn: its room is there before it begins, so that nothing moves."""
    place = picture(470, name)
    place.value = WAITING
    return place


def take_home(name: str) -> None:
    """Buttons that save the pictures of this tab and their values; `name` is part of the files' names."""
    kinds = {
        "png": "The pictures of this tab, for slides",
        "svg": "The pictures of this tab, to be scaled and edited",
        "csv": "The numbers behind them, for a spreadsheet",
        "json": "The numbers with the settings and the network's name, for programs",
    }
    buttons = "".join(
        f'<button type="button" data-save="{kind}" title="{title}">{kind.upper()}</button>'
        for kind, title in kinds.items()
    )
    gr.HTML(
        f'<p class="take-home" data-name="{escape(name)}">Save what is shown as {buttons}</p>',
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
    """A figure on the page, its panels side by side as far as there is room. `narrow`: three in a row, not two."""
    from demo.svg import to_legend_and_panels  # imports matplotlib; see `Page.warm_up`

    legend, parts = to_legend_and_panels(figure, plain(description))
    return f'<div class="legended">{legend}<div class="figure{" narrow" if narrow else ""}">{parts}</div></div>'


def plain(words: str) -> str:
    """HTML → what a screen reader may say: no tags."""
    return re.sub(r"<[^>]*>", "", words)


def signed(number: str) -> str:
    """With a minus sign for the hyphen: no line is broken after it, and it is as wide as a plus."""
    return number.replace("-", "−")


def done(solved: bool) -> str:
    """What ticks the tab's task, see `demo.page`."""
    return "<span data-done></span>" if solved else ""


def sentence(words: str, drawn: Drawn | None = None, spoken: bool = True) -> str:
    """The picture in words (HTML). Screen readers speak it when it changes, unless not `spoken`: it always does."""
    note = '<br><span class="note">Example – draw to use your own digit</span>' if drawn and drawn.is_example else ""
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
