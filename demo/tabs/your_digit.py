"""The same digit in eval and in train mode, in a company of one's choice."""

from html import escape
from typing import Any

import gradio as gr
import numpy as np

from bnmodel.experiments.modes import COMPANY, companions, compare
from demo.images import grey, png_url
from demo.page import Drawn, Page

SHOWN = 37  # thumbnails at most; style.css keeps room for these and one more
KINDS = {
    "random": "random digits",
    "one class": "all of one class",
    "copies": "copies of your digit",
    "noise": "noise",
    "inverted": "inverted digits",
    "blurred": "blurred digits",
}

LOOK = """
Both answers come from the same weights. **Eval mode** normalises with the running statistics kept from training, so
its answer never depends on who else is in the batch. **Train mode** normalises with the mean and variance of *this*
batch, your digit and its company together: change the company and watch the right side move while the left stands
still. Draw a **1**, put it among blurred digits and reshuffle: its answer wavers, and soon is another one.
"""
FORMULA = r"""
$$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma\,\hat x + \beta$$

Per channel, over the batch and all positions. In **eval** mode $\mu, \sigma^2$ are the running averages stored in the
checkpoint; in **train** mode they are those of the $1 + n$ digits of this batch. Dropout is off on both sides, so that
the statistics are the only difference.

Source: `bnmodel/batchnorm.py` (the layer), `bnmodel/experiments/modes.py` (this comparison). Ioffe & Szegedy 2015,
[arXiv 1502.03167](https://arxiv.org/abs/1502.03167).
"""


def build(page: Page) -> None:
    with page.tab("Your digit", "Does the answer to your digit depend on who else is in the batch?") as tab:
        with gr.Row(elem_classes="controls"):
            count = gr.Slider(0, 255, 31, step=1, label="Companions", elem_id="count", min_width=160)
            choices = [(KINDS[kind], kind) for kind in COMPANY]
            kind = gr.Dropdown(choices, value="one class", label="Who", elem_id="kind", min_width=150)
            label = gr.Dropdown(list(range(10)), value=1, label="Which class", elem_id="class", min_width=90, scale=0)
            reshuffle = gr.Button("Reshuffle", elem_id="reshuffle", min_width=110, scale=0)
        seed = gr.Number(0, precision=0, visible="hidden")  # mounted, or it would not tell of its change
        picture = gr.HTML(elem_id="modes", min_height=520, apply_default_css=False)
        gr.Markdown(LOOK, elem_classes="look")
        with gr.Accordion("The formula and the source", open=False):
            gr.Markdown(
                FORMULA,
                latex_delimiters=[
                    {"left": "$$", "right": "$$", "display": True},
                    {"left": "$", "right": "$", "display": False},
                ],
            )
        tab.live(show, inputs=[count, kind, label, seed], outputs=[picture])
        reshuffle.click(None, [seed], [seed], js="seed => seed + 1", api_visibility="private")
        only_one_class = "kind => ({ interactive: kind === 'one class', __type__: 'update' })"
        kind.change(None, [kind], [label], js=only_one_class, api_visibility="private")


def show(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> str:
    company = companions(kind, count, seed, drawn.digit, label if kind == "one class" else None)
    modes = compare(drawn.model.network, drawn.digit, company)
    train = modes.train_probabilities
    return (
        f"{sentence(drawn, train, count)}{paired_bars(drawn.probabilities, train)}"
        f"{thumbnails(drawn, company[: SHOWN - 1, 0].numpy(), count)}"
    )


def sentence(drawn: Drawn, train: np.ndarray, count: int) -> str:
    """The picture in words, announced to screen readers."""
    who = "In this company" if count else "All alone"
    verb = "also says" if train.argmax() == drawn.label else "says"
    note = '<br><span class="note">an example, until you draw</span>' if drawn.is_example else ""
    return (
        f'<p class="sentence" aria-live="polite"><b class="eval">Eval mode says {drawn.label}</b> '
        f"({percent(drawn.probabilities.max())}). {who} "
        f'<b class="train">train mode {verb} {train.argmax()}</b> ({percent(train.max())}).{note}</p>'
    )


def paired_bars(left: np.ndarray, right: np.ndarray) -> str:
    """(10,) and (10,) probabilities as two rows of bars that grow from the digits between them."""
    rows = "".join(
        f'<tr><td class="eval{top(left, digit)}">{bar(left[digit])}</td><th scope="row">{digit}</th>'
        f'<td class="train{top(right, digit)}">{bar(right[digit])}</td></tr>'
        for digit in range(10)
    )
    return (
        '<table class="paired"><thead><tr><th scope="col" class="eval">Eval mode<small>running statistics</small></th>'
        '<th scope="col"><span class="hidden-text">Digit</span></th>'
        '<th scope="col" class="train">Train mode<small>statistics of this batch</small></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def bar(p: float) -> str:
    return f'<div><i style="--p:{p:.4f}"></i><span>{percent(p) if p >= 0.005 else ""}</span></div>'


def top(probabilities: np.ndarray, digit: int) -> str:
    return " top" if probabilities.argmax() == digit else ""


def thumbnails(drawn: Drawn, company: np.ndarray, count: int) -> str:
    """The batch: the digit itself, framed, then its companions (M, 28, 28)."""
    tiles = [f'<img class="self" src="{png_url(grey(drawn.digit.numpy()))}" alt="your digit">']
    tiles += [f'<img src="{png_url(grey(other))}" alt="">' for other in company]
    hidden = count - len(company)
    more = f"<span>+ {hidden}</span>" if hidden else ""
    whose, plural = "the example" if drawn.is_example else "your digit", "" if count == 1 else "s"
    caption = f"The batch: {whose} and {count} companion{plural}"
    return f'<figure class="batch"><figcaption>{escape(caption)}</figcaption><div>{"".join(tiles)}{more}</div></figure>'


def percent(p: Any) -> str:
    """99.95 % must not read as a certainty."""
    return f"{int(1000 * p) / 10:.1f} %" if 0.99 < p < 1 else f"{100 * p:.0f} %"
