"""The same digit in eval and in train mode, in a company of one's choice."""

from html import escape

import gradio as gr
import numpy as np

from bnmodel.experiments.modes import compare
from demo.components import code, company, company_controls, fold, percent, picture, sentence
from demo.images import grey, png_url
from demo.page import Drawn, Page

SHOWN = 37  # thumbnails at most; style.css keeps room for these and one more

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

Source: `bnmodel/nn/batchnorm.py` (the layer), `bnmodel/experiments/modes.py` (this comparison). Ioffe & Szegedy 2015,
[arXiv 1502.03167](https://arxiv.org/abs/1502.03167).
"""

CODE = """
from bnmodel import load_checkpoint
from bnmodel.data import load_sample
from bnmodel.experiments import modes
model, digit = load_checkpoint("checkpoints/lecture").model, load_sample(train=False).images[716, 0]
company = modes.companions("one class", 31, 0, digit, label=1)  # 31 ones, by seed 0
result = modes.compare(model, digit, company)
print(result.eval_probabilities, result.train_probabilities)
"""


def build(page: Page) -> None:
    with page.tab("Your digit", "Does the answer to your digit depend on who else is in the batch?") as tab:
        chosen = company_controls()
        shown = picture(520, "modes")
        gr.Markdown(LOOK, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=chosen, outputs=[shown])


def show(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> str:
    others = company(drawn, count, kind, label, seed)
    modes = compare(drawn.model.network, drawn.digit, others)
    train = modes.train_probabilities
    return (
        f"{sentence(in_words(drawn, train, count), drawn)}{paired_bars(drawn.probabilities, train)}"
        f"{thumbnails(drawn, others[: SHOWN - 1, 0].numpy(), count)}"
    )


def in_words(drawn: Drawn, train: np.ndarray, count: int) -> str:
    who = "In this company" if count else "All alone"
    verb = "also says" if train.argmax() == drawn.label else "says"
    return (
        f'<b class="eval">Eval mode says {drawn.label}</b> ({percent(drawn.probabilities.max())}). {who} '
        f'<b class="train">train mode {verb} {train.argmax()}</b> ({percent(train.max())}).'
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
