"""Corrupted digits: where a batch's own statistics help, and where they hurt."""

import gradio as gr
import numpy as np

from bnmodel.experiments import corruption
from bnmodel.experiments.corruption import KINDS, Corruption
from demo.components import code, fold, panels, percent, picture, sentence
from demo.images import grey, png_url
from demo.page import Drawn, Page

LOOK = """
Left, 500 test digits; right, yours; all of them corrupted alike. When **everything shifts the same way**, faint ink for
example, the batch's own statistics shift along and undo much of it: the solid curve stays up. At severity 0 they gain
nothing, and with a small batch they lose: set the batch to 2. And one clear digit among wrecked ones may fare worse
than alone, since it is normalised by *their* statistics.
"""
FORMULA = r"""
If a corruption scales or shifts a channel as a whole, $x' = a x + b$, then with the batch's own statistics

$$\frac{x' - \mu'}{\sigma'} = \frac{a x + b - (a \mu + b)}{a \sigma} = \frac{x - \mu}{\sigma}, \qquad a > 0$$

and the corruption is gone; with running statistics it is not. Real corruptions are undone in part.

Source: `bnmodel/experiments/corruption.py`. Nado et al. 2020, [arXiv 2006.10963](https://arxiv.org/abs/2006.10963).
"""
CODE = """
from bnmodel import load_checkpoint, plotting
from bnmodel.data import load_sample
from bnmodel.experiments import corruption
model, digit = load_checkpoint("checkpoints/lecture").model, load_sample(train=False).images[716, 0]
result = corruption.run(model, digit, kind="contrast", batch_size=50)
print(result.eval_accuracy, result.train_accuracy)
plotting.save(corruption.figure(result), "corruption.png")
"""
BATCH_SIZES = (2, 5, 10, 50, 100, 500)


def build(page: Page) -> None:
    with page.tab("Corruption", "When the world changes, which statistics are better: old ones or new ones?") as tab:
        with gr.Row(elem_classes="controls"):
            kind = gr.Radio(list(KINDS), value="contrast", label="Corruption", elem_id="corruption-kind")
            batch_size = gr.Dropdown(list(BATCH_SIZES), value=50, label="Batch size", min_width=90, scale=0)
        shown = picture(500, "corruption")
        gr.Markdown(LOOK, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[kind, batch_size], outputs=[shown])


def show(drawn: Drawn, kind: str, batch_size: int) -> str:
    result = corruption.run(drawn.model.network, drawn.digit, kind, batch_size)
    words = in_words(result)
    return sentence(words, drawn) + strip(result) + panels(corruption.figure(result), words)


def in_words(result: Corruption) -> str:
    """Where the two are furthest apart."""
    gain = result.train_accuracy - result.eval_accuracy
    where = int(np.abs(gain).argmax())
    if abs(gain[where]) < 0.01:
        return f"Under {result.kind}, both kinds of statistics do equally well."
    return (
        f"Under {result.kind} of severity {result.severities[where]:.1f}, running statistics get "
        f"{percent(result.eval_accuracy[where])} of the digits right, those of the batch "
        f"{percent(result.train_accuracy[where])}."
    )


def strip(result: Corruption) -> str:
    """The digit at every severity."""
    return f'<div class="strip">{"".join(map(_tile, result.digits, result.severities))}</div>'


def _tile(digit: np.ndarray, severity: float) -> str:
    image = f'<img src="{png_url(grey(digit))}" alt="the digit at severity {severity:.1f}">'
    return f"<figure>{image}<figcaption>{severity:.1f}</figcaption></figure>"
