"""Corrupted digits: accuracy with running and with batch statistics."""

import gradio as gr
import numpy as np

from bnmodel.experiments import corruption
from bnmodel.experiments.corruption import KINDS, Corruption
from bnmodel.plotting import percent
from demo import components as ui
from demo.ahead import compute_ahead
from demo.images import grey, png_url
from demo.models import Model
from demo.page import Drawn, Page

QUESTION = "When the input changes, which statistics are better: old ones or new ones?"
TASK = "Find a setting in which the running statistics win by half a percentage point."
HINT = """
Look where the two curves separate, first for test digits, then for yours; all are corrupted in the same way.
"""
LOOK = """
When **all images change in the same way**, as with faint ink, batch statistics change with them and undo much
of it: the dashed curve stays up. At severity 0 they gain hardly anything, and with a small batch they lose: set the
batch size to 2. A clear digit among corrupted ones may be read worse than alone, since it is normalised by *their*
statistics.
"""
FORMULA = r"""
If a corruption scales or shifts a channel as a whole, $x' = a x + b$, then with batch statistics

$$\frac{x' - \mu'}{\sigma'} = \frac{a x + b - (a \mu + b)}{a \sigma} = \frac{x - \mu}{\sigma}, \qquad a > 0$$

and the corruption is gone; with running statistics it is not. Real corruptions are undone in part.

Source: `bnmodel/experiments/corruption.py`. Nado et al. 2020, [arXiv 2006.10963](https://arxiv.org/abs/2006.10963).
"""
CHANGES = {
    "noise": "With noise added",
    "blur": "With blur",
    "inversion": "With colours inverted",
    "contrast": "With contrast reduced",
}
BATCH_SIZES = (2, 5, 10, 50, 100, 500)
BATCH_SIZE = 50  # at first
SEED = 0


def build(page: Page) -> None:
    with page.tab("Corruption", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            kind = gr.Radio(list(KINDS), value="contrast", label="Corruption", elem_id="corruption-kind")
            batch_size = gr.Dropdown(
                list(BATCH_SIZES),
                value=BATCH_SIZE,
                label="Batch size (digits)",
                min_width=110,
                scale=0,
                elem_id="corruption-batch-size",
            )
        shown = ui.picture(600, "corruption")
        ui.take_home("corruption")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(ui.with_code(show, snippet), inputs=[kind, batch_size], outputs=[shown, lines])


def show(drawn: Drawn, kind: str, batch_size: int) -> str:
    result = corruption.run(drawn.model.network, drawn.digit, kind, batch_size, SEED)
    words = in_words(result)
    compute_ahead(every_accuracy, drawn.model)
    return (
        ui.sentence(words, drawn) + strip(result) + ui.panels(corruption.figure(result), words) + ui.done(loses(result))
    )


def every_accuracy(model: Model) -> None:
    """Compute the accuracies, which do not depend on the digit: first the other kinds, then the other batch sizes."""
    for batch_size in (0, *sorted(BATCH_SIZES, key=lambda size: size != BATCH_SIZE)):
        for kind in KINDS:
            corruption.accuracies(model.network, kind, min(batch_size, corruption.samples(model.network)), SEED)


def snippet(drawn: Drawn, kind: str, batch_size: int) -> str:
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import corruption
result = corruption.run(model, digit, kind="{kind}", batch_size={batch_size})
print(result.eval_accuracy, result.train_accuracy)
plotting.save(corruption.figure(result), "corruption.png")
"""


def loses(result: Corruption) -> bool:
    """Whether batch statistics are at least half a percentage point worse at some severity."""
    return bool((result.eval_accuracy - result.train_accuracy).max() >= 0.005)


def in_words(result: Corruption) -> str:
    """Both accuracies at the severity at which they differ most."""
    gain = result.train_accuracy - result.eval_accuracy
    where = int(np.abs(gain).argmax())
    if abs(gain[where]) < 0.01:
        return f"{CHANGES[result.kind]}, both kinds of statistics do equally well."
    return (
        f"{CHANGES[result.kind]} (severity {result.severities[where]:.1f}), the running statistics get "
        f'<b class="eval">{percent(result.eval_accuracy[where])}</b> of the digits right, those of the batch '
        f'<b class="train">{percent(result.train_accuracy[where])}</b>.'
    )


def strip(result: Corruption) -> str:
    """The digit at every severity."""
    tiles = "".join(map(_tile, result.digits, result.severities))
    return f'<p class="caption">This digit by severity:</p><div class="strip">{tiles}</div>'


def _tile(digit: np.ndarray, severity: float) -> str:
    image = f'<img src="{png_url(grey(digit))}" alt="the digit at severity {severity:.1f}">'
    return f"<figure>{image}<figcaption>{severity:.1f}</figcaption></figure>"
