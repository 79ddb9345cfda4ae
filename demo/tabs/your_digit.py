"""The answers to one digit in eval and in train mode, with chosen other digits in its batch."""

from html import escape
from typing import Any

import numpy as np

from bnmodel.experiments.modes import train_probabilities
from bnmodel.experiments.other_samples import Others
from bnmodel.plotting import certainty
from demo import components as ui
from demo.images import grey, png_url
from demo.page import Drawn, Page
from demo.shared_controls import batch_controls, draw_others, named, others_in_code, presets

SHOWN = 37  # thumbnails at most; style.css keeps room for these and one more

QUESTION = "Does the answer to your digit depend on the rest of the batch?"
TASK = "Choose other digits yourself until train mode gives another answer than eval mode."
LEAD = "**Batch norm** shifts and scales every channel."
HINT = """
Batch norm normalises with a mean and a variance: in **eval mode** those stored in training, in **train mode** those of
this batch. Compare the two columns: same network, same digit, different statistics.
"""
LOOK = """
**Eval mode** normalises with the running statistics kept from training, so its answer never depends on the rest of the
batch. **Train mode** normalises with the mean and variance of *this* batch: change the other digits, and its
probabilities change, sometimes its answer too. Programs therefore call `eval()` before they predict. *Worked out* shows
the computation, and *Why* shows where in the network the two modes differ.
"""
ELSEWHERE = "Try another digit, such as a 1, or another network."
FORMULA = r"""
$$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma\,\hat x + \beta$$

Per channel, over the batch and all positions. In **eval** mode $\mu, \sigma^2$ are the running averages stored in the
checkpoint; in **train** mode they are those of the $1 + n$ digits of this batch. Dropout is off on both sides, so that
the statistics are the only difference.

*The most revealing batch* is found by a search. It tries one other digit of each class, seven of each class, then 7 and
31 random or blurred digits, blank sheets, inverted digits and noise, and stops once the answer changes clearly.

Source: `bnmodel/nn/batchnorm.py` (the layer), `bnmodel/experiments/modes.py` (this comparison). Ioffe & Szegedy 2015,
[arXiv 1502.03167](https://arxiv.org/abs/1502.03167).
"""


def build(page: Page) -> None:
    with page.tab("Your digit", QUESTION, task=TASK) as tab:
        ui.lead(LEAD)
        ui.hint(HINT)
        batch = batch_controls(page)
        presets(batch)
        shown = ui.picture(520, "modes")
        ui.take_home("your-digit")
        ui.check_own("answers that depend on the batch")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(ui.with_code(show, snippet), outputs=[shown, lines], shared=batch)


def show(drawn: Drawn, *batch: Any) -> str:
    chosen, others, flips = draw_others(drawn, *batch)
    train = train_probabilities(drawn.model.network, drawn.digit, others)
    return (
        f"{ui.sentence(in_words(drawn, train, chosen, flips), drawn)}{paired_bars(drawn.probabilities, train)}"
        f"{thumbnails(drawn, others[: SHOWN - 1, 0].numpy(), chosen)}"
        f"{ui.done(flips is None and chosen.count > 0 and train.argmax() != drawn.label)}"
    )


def snippet(drawn: Drawn, *batch: Any) -> str:
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import modes
{others_in_code(drawn, *batch)}result = modes.compare(model, digit, others)
print(result.eval_probabilities, result.train_probabilities)
"""


def in_words(drawn: Drawn, train: np.ndarray, chosen: Others, flips: bool | None) -> str:
    """Both answers, and, after a search, whether the batch that was found changes the answer."""
    where = named(chosen)
    verb = "also says" if train.argmax() == drawn.label else "says"
    told = (
        f'<b class="eval">Eval mode says {drawn.label}</b> ({certainty(drawn.probabilities.max())}). '
        f'{where[0].upper()}{where[1:]}, <b class="train">train mode {verb} {train.argmax()}</b> '
        f"({certainty(train.max())})."
    )
    if flips is False:
        told += f" No batch that was tried changes this answer; this one comes closest. {ELSEWHERE}"
    return told


def paired_bars(left: np.ndarray, right: np.ndarray) -> str:
    """(10,) and (10,) probabilities as two rows of bars that grow from the digits between them."""
    rows = "".join(
        f"<tr>{_cell('eval', left, digit)}"
        f'<th scope="row" data-tip="{digit}: eval mode {certainty(left[digit])}, train mode {certainty(right[digit])}">'
        f"{digit}</th>{_cell('train', right, digit)}</tr>"
        for digit in range(10)
    )
    return (
        '<table class="paired"><thead><tr><th scope="col" class="eval">Eval mode<small>running statistics</small></th>'
        '<th scope="col"><span class="hidden-text">Digit</span></th>'
        '<th scope="col" class="train">Train mode<small>statistics of this batch</small></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _cell(mode: str, probabilities: np.ndarray, digit: int) -> str:
    """A bar; a number that would be 0% is for screen readers only."""
    p = float(probabilities[digit])
    top = " top" if probabilities.argmax() == digit else ""
    number = certainty(p).replace("above", ">") if p >= 0.005 else f'<span class="hidden-text">{certainty(p)}</span>'
    return (
        f'<td class="{mode}{top}" data-value="{p:.6f}" data-tip="{mode} mode: {certainty(p)} for {digit}">'
        f'<div><i style="--p:{p:.4f}"></i><span>{number}</span></div></td>'
    )


def thumbnails(drawn: Drawn, others: np.ndarray, chosen: Others) -> str:
    """The batch: the digit itself, framed, then the others (M, 28, 28)."""
    whose = "the example" if drawn.is_example else "your digit"
    tiles = [f'<img class="self" src="{png_url(grey(drawn.digit.numpy()))}" alt="{whose}" data-tip="{whose}">']
    tiles += [f'<img src="{png_url(grey(other))}" alt="">' for other in others]
    hidden = chosen.count - len(others)
    more = f"<span>+ {hidden}</span>" if hidden else ""
    rest = named(chosen)
    caption = f"The batch: {whose}, {rest if not chosen.count else rest.removesuffix(' in the batch')}"
    return f'<figure class="batch"><figcaption>{escape(caption)}</figcaption><div>{"".join(tiles)}{more}</div></figure>'
